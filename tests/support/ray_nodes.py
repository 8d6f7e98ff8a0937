"""A Ray cluster whose nodes are processes of this machine, each with an address of the loopback network of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.postgres import free_port

_TIMEOUT = 120
"""Seconds until a node is taken for one that will not start; generous, since the machine may be busy."""


class RayCluster:
    """Nodes that listen on this machine alone, with one core each, as `ray start` makes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._port = free_port("127.0.0.2")
        # The path of a socket in it has at most 107 characters.
        self._add("--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={folder / 'ray'}")

    @property
    def address(self) -> str:
        """For `--ray`."""
        return f"127.0.0.2:{self._port}"

    def add_node(self) -> None:
        """One more node."""
        self._add(f"--address={self.address}")

    def kill_node(self) -> None:
        """Kill all processes of the last node, as a loss of power."""
        node = self._nodes.pop()
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def close(self) -> None:
        """Kill all nodes."""
        while self._nodes:
            self.kill_node()

    def cache(self, node: int) -> Path:
        """NAS_CACHE of a node, by its number in the order of their start."""
        return self._folder / f"cache{node}"

    def _add(self, *words: str) -> None:
        number = len(self._nodes)
        own = {"NAS_CACHE": str(self.cache(number)), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "start", "--block", f"--node-ip-address=127.0.0.{number + 2}", "--num-cpus=1", "--num-gpus=0"]
        command += ["--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0", *words]
        log = self._folder / f"log{number}"
        with log.open("wb") as output:
            node = subprocess.Popen(
                command,
                env=os.environ | own,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes.append(node)
        deadline = time.monotonic() + _TIMEOUT
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@contextmanager
def ray_cluster(nodes: int) -> Iterator[RayCluster]:
    """A cluster of so many nodes, which is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="nas-ray-"))
    try:
        cluster = RayCluster(folder)
        try:
            for _ in range(nodes - 1):
                cluster.add_node()
            yield cluster
        finally:
            cluster.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
