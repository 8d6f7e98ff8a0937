"""Temporary files and folders beside their targets. What a kill leaves of them is removed by the next start.

They are ours by their name. Whoever works with one holds its lock, which the system lets go of however a process ends;
on disks that have no locks, one counts as left behind a day after its last change. Their permissions are those that
the umask leaves, so what is moved into place can be read by whom the user wants.

    .nas-tmp-<random>                   a file that is being written, or a folder that is being filled
    .nas-tmp-<random>/replaced/<name>   what was at `<name>` beside it, until its successor is there
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal

PREFIX = ".nas-tmp-"
"""How the name of everything temporary begins."""

_REPLACED = "replaced"
_LEFT_BEHIND_S = 24 * 3600.0
"""Seconds without a change after which something that cannot be locked counts as left behind."""
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL})
"""What `flock` says on a disk that has no locks, or none for folders."""


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in `folder`, open for writing, and its path; removed at the end unless it was renamed.

    Raises:
        OSError: the disk does not take it.
    """
    _sweep_once(folder.absolute())
    path, handle = _make(folder, as_folder=False)
    try:
        with os.fdopen(handle, "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, removed at the end with everything in it.

    Raises:
        OSError: the disk does not take it.
    """
    _sweep_once(folder.absolute())
    path, handle = _make(folder, as_folder=True)
    try:
        yield path
    finally:
        _remove_folder(path)
        os.close(handle)


def put_in_place(new: Path, target: Path) -> None:
    """Move something complete from a temporary folder beside `target` to `target`.

    What is there is moved away first and removed with the temporary folder; a kill between these two leaves `target`
    to the next start, which puts the old one back. Permissions become those that the umask leaves, and the data is on
    the disk before the name is.

    Raises:
        OSError: the disk does not take it; what was at `target` is there again at the end of the temporary folder.
    """
    work = new.parent
    for path in (new, *new.rglob("*")):
        _settle(path, work.stat().st_mode)
    if os.path.lexists(target):
        (work / _REPLACED).mkdir()
        target.rename(work / _REPLACED / target.name)
    new.rename(target)


def sweep(folder: Path) -> None:
    """Remove what killed processes left of ours in `folder` and below; what is in use stays.

    Raises:
        OSError: the disk does not take it.
    """
    for place, folders, _ in os.walk(folder):
        sweep_one(Path(place))
        folders[:] = [name for name in folders if not name.startswith(PREFIX)]


@cache
def _sweep_once(folder: Path) -> None:
    """Whatever a kill left there was left before this process began."""
    sweep_one(folder)


def sweep_one(folder: Path) -> None:
    """The same in `folder` alone, not below.

    Raises:
        OSError: the disk does not take it.
    """
    with os.scandir(folder) as entries:
        ours = [entry for entry in entries if entry.name.startswith(PREFIX)]
    for entry in ours:
        if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
            _remove_if_left_behind(Path(entry.path), os.O_RDONLY if entry.is_dir() else os.O_RDWR)


def _remove_if_left_behind(path: Path, flags: int) -> None:
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW)
    except (FileNotFoundError, PermissionError):
        return  # somebody else's, or swept by somebody else
    try:
        if not _is_free(path, handle):
            return
        if path.is_dir():
            _remove_folder(path)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _remove_folder(path: Path) -> None:
    """Remove a temporary folder; what was moved away for a successor that never came is put back before."""
    away = path / _REPLACED
    for old in away.iterdir() if away.is_dir() else ():
        home = path.parent / old.name
        if not os.path.lexists(home):
            old.rename(home)
    # What cannot be removed now is left to the next sweep.
    shutil.rmtree(path, ignore_errors=True)


def _make(folder: Path, *, as_folder: bool) -> tuple[Path, int]:
    """Something new, with the open file that holds its lock."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}"
        if as_folder:
            path.mkdir()
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # swept before it was locked
        else:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        _lock(handle, wait=True)
        if path.exists():
            return path, handle
        os.close(handle)  # swept before it was locked


def _is_free(path: Path, handle: int) -> bool:
    """Whether nobody works with it; then this process holds its lock, where there are locks."""
    found = _lock(handle, wait=False)
    if found == "no locks":
        newest = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
        return time.time() - newest > _LEFT_BEHIND_S
    return found == "held by us"


def _lock(handle: int, *, wait: bool) -> Literal["held by us", "held", "no locks"]:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in NO_LOCKS:
            return "no locks"
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
            return "held"
        raise
    return "held by us"


def _settle(path: Path, mode: int) -> None:
    """Give a file or folder the permissions of the folder `mode` (a file cannot be run), and its data to the disk."""
    if path.is_symlink():
        return
    special = stat.S_IMODE(path.stat().st_mode) & ~0o777
    path.chmod(special | (mode & (0o777 if path.is_dir() else 0o666)))
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
