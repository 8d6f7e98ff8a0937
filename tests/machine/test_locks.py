"""Locks of folders: one holder, however it ends, and one clear line for everybody else."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from nas.machine.locks import lock_folder
from nas.terminal.errors import UserError

ROOT = Path(__file__).parents[2]

HOLD = """
import sys, time
from pathlib import Path
from nas.machine.locks import lock_folder
with lock_folder(Path(sys.argv[1]), "wait"):
    print("held", flush=True)
    time.sleep(600)
"""


def refused(folder: Path) -> bool:
    """Whether the folder is refused as it should be: at once, with one line that says what to do."""
    try:
        with lock_folder(folder, "wait for it"):
            return False
    except UserError as error:
        assert str(error) == f"{folder} is in use by another process: wait for it"
        return True


@contextmanager
def another_process(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that holds the folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, env=environment
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_another_process_is_refused_until_the_holder_ends(number: signal.Signals, tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert refused(tmp_path)
        process.send_signal(number)
        process.wait()
        assert not refused(tmp_path)


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    """In the same thread and in another one; afterwards it is free again."""
    found = []
    with lock_folder(tmp_path, "wait"):
        assert refused(tmp_path) and refused(tmp_path)
        thread = threading.Thread(target=lambda: found.append(refused(tmp_path)))
        thread.start()
        thread.join()
        assert refused(tmp_path)
    assert found == [True] and not refused(tmp_path)


def test_a_child_keeps_no_lock_of_its_parent(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "wait"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    with child:
        assert not refused(tmp_path)
        child.kill()


def test_an_error_inside_passes_and_lets_go(tmp_path: Path) -> None:
    for error in (KeyError("mine"), Timeout("another.lock"), OSError(errno.ENOLCK, "another disk")):
        with pytest.raises(type(error)) as caught, lock_folder(tmp_path, "wait"):
            raise error
        assert caught.value is error
    assert not refused(tmp_path)


def test_the_time_of_the_file_says_when_it_was_last_taken(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with lock_folder(tmp_path, "wait"):
        pass
    assert file.exists()
    os.utime(file, (1e9, 1e9))
    with lock_folder(tmp_path, "wait"):
        assert file.stat().st_mtime > 1e9
        os.utime(file, (1e9, 1e9))
        assert refused(tmp_path)
    assert file.stat().st_mtime == 1e9, "being refused, or letting go, is no use of the folder"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_may_take_it(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        assert not refused(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == mode


def test_a_lock_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path) -> None:
    """An empty file that was left behind holds nothing; one that is locked by `flock` holds."""
    (tmp_path / ".lock").write_bytes(b"")
    assert not refused(tmp_path)
    with FileLock(tmp_path / ".lock"):
        assert refused(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_disk_without_locks_is_refused_and_not_locked_by_a_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", missing)
    with (
        pytest.raises(UserError, match="cannot be locked on this disk: choose a folder"),
        lock_folder(tmp_path, "wait"),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "permission is denied"),
    ],
)
def test_a_disk_that_takes_no_file_is_one_line(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if str(path).endswith(".lock"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError) as caught, lock_folder(tmp_path, "wait"):
        pass
    assert str(caught.value).startswith(f"cannot write to {tmp_path}: {words} ({tmp_path}") and "\n" not in str(
        caught.value
    )
