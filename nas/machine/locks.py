"""Folders that one process at a time may work in."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nas.machine.files import disk_errors
from nas.machine.temporary import NO_LOCKS, sweep
from nas.terminal.errors import UserError

_LOOK_S = 0.2
"""Longest that `is_held` may be in the way of somebody who wants a folder, in seconds, with plenty to spare."""


def is_held(folder: Path) -> bool:
    """Whether somebody holds a folder now. Nothing is written, and nobody is kept from it.

    Raises:
        UserError: its `.lock` cannot be read, or its disk has no locks.
    """
    path = folder / ".lock"
    if not path.exists():
        return False
    with disk_errors(f"cannot look into {folder}"), path.open("rb") as file:
        try:
            # Shared with others who look, and let go of at once.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False


@contextmanager
def lock_folder(folder: Path, remedy: str) -> Iterator[None]:
    """Hold a folder for the `with`, without waiting for its holder; the system lets go of it however the process ends.

    Nobody else gets it meanwhile, this process included; what killed processes left of ours in it is removed. The
    modification time of `.lock` in the folder, which stays there, says when it was last taken.

    Raises:
        UserError: it is held already (`remedy` says what to do), its disk has no locks, or `.lock` cannot be written.
    """
    path = folder / ".lock"
    # Never a lock that is a mere file, where the disk has no others: nothing would remove it after a kill.
    lock = FileLock(
        path,
        timeout=_LOOK_S,
        poll_interval=_LOOK_S / 4,
        thread_local=False,
        fallback_to_soft=False,
        preserve_lock_file=True,
    )
    with disk_errors(f"cannot write to {folder}"):
        _acquire(lock, folder, remedy)
    try:
        with disk_errors(f"cannot write to {folder}"):
            os.utime(path)
            sweep(folder)
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path, remedy: str) -> None:
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder} is in use by another process: {remedy}") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(f"{folder} cannot be locked on this disk: choose a folder on another disk") from error
