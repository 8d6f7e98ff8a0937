"""A PostgreSQL server of a test's own: a folder, a port and a password that nothing else knows."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest


class PostgresServer:
    """A server that listens on this machine alone; it can be stopped and started again."""

    password = "s3cret/of the test"
    """With characters that an address has to escape."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._port = free_port()
        # The server refuses to work for root.
        self._account = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        password = folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        words = ["--username=nas", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", *words, "--locale=C.UTF-8", "--pgdata", str(folder / "data"))

    def url(self) -> str:
        """Address of its database for `--storage`."""
        return f"postgresql://nas:{quote(self.password, safe='')}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it; back when it takes connections."""
        settings = f"-p {self._port} -h 127.0.0.1 -k {self._folder} -F"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "--wait", "--pgdata", str(self._folder / "data"), "--log", log, "-o", settings)

    def stop(self, mode: str = "fast") -> None:
        """Stop it: "fast" ends what its clients are doing and says so, "immediate" is as a loss of power."""
        self._run("pg_ctl", "stop", "--wait", "--pgdata", str(self._folder / "data"), "--mode", mode)

    def _run(self, program: str, *words: str) -> None:
        # A server that goes on would keep a pipe open.
        with (self._folder / "programs").open("a+") as output:
            command = [str(self._programs / program), *words]
            done = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                timeout=120,
                user=self._account and self._account.pw_uid,
                group=self._account and self._account.pw_gid,
                extra_groups=self._account and [],
            )
            output.seek(0)
            assert done.returncode == 0, output.read()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs, and is gone at the end; the test is skipped where PostgreSQL is not installed."""
    programs = _find_programs()
    if programs is None:
        pytest.skip("needs a PostgreSQL server (Debian's package postgresql)")
    # Folders that pytest makes for root are closed to the server's account.
    folder = Path(tempfile.mkdtemp(prefix="nas-postgres-"))
    try:
        server = PostgresServer(folder, programs)
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop("immediate")
    finally:
        shutil.rmtree(folder)


def _find_programs() -> Path | None:
    """Folder of the server's programs, which Debian keeps out of the path; None if it is not installed."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found).parent if found else folders[-1].parent if folders else None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
