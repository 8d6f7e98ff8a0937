"""Folders that one process at a time may work in."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nas.terminal.errors import UserError


@contextmanager
def lock_folder(folder: Path, remedy: str) -> Iterator[None]:
    """Hold a folder for the `with`, without waiting for it; the system lets go of it however the process ends.

    Nobody else gets it meanwhile, this process included. The modification time of `.lock` in the folder, which stays
    there, says when it was last taken.

    Raises:
        UserError: it is held already (`remedy` says what to do), or its disk has no locks.
        OSError: `.lock` cannot be written.
    """
    path = folder / ".lock"
    # Never a lock that is a mere file, where the disk has no others: nothing would remove it after a kill.
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder} is in use by another process: {remedy}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK):
            raise
        raise UserError(f"{folder} cannot be locked on this disk: choose a folder on another disk") from error
    try:
        os.utime(path)
        yield
    finally:
        lock.release()
