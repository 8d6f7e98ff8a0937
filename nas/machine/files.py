"""Writing files so that a kill at any moment leaves the old one or the new one, never half of it."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.machine.temporary import sweep, temporary_file
from nas.terminal.disk_reasons import disk_reason
from nas.terminal.errors import UserError

_PROBE_BYTES = 1024 * 1024
"""Size in bytes of the file that shows whether a disk takes anything."""


def default_cache_dir() -> Path:
    """Folder of what can be computed again when it is lost: `$NAS_CACHE`, else `~/.cache/turbo-vaed-nas`."""
    return Path(os.environ.get("NAS_CACHE") or Path.home() / ".cache" / "turbo-vaed-nas")


def write_bytes(path: Path, data: bytes, *, parents: bool = True) -> None:
    """Write `data` to `path` in one step (temporary file, flush to disk, rename); its folder is made if need be.

    Args:
        path: the file.
        data: what it will hold.
        parents: whether what the folder lies in is made, too. False for files of a run, which may have been moved.

    Raises:
        OSError: the disk does not take it (see `disk_errors`); the old file is still there.
    """
    try:
        path.parent.mkdir(parents=parents, exist_ok=True)
        with temporary_file(path.parent) as (new, file):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
    except OSError as error:
        # The user knows the file by this name.
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON in one step.

    Raises:
        OSError: as `write_bytes`.
    """
    write_bytes(path, (json.dumps(data, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """What the JSON file at `path` holds.

    Raises:
        UserError: the file is not valid JSON or cannot be read; the message names it.
        FileNotFoundError: there is none.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        reason, remedy = disk_reason(error) or (error.strerror, "check the disk")
        raise UserError(f"{path} cannot be read ({reason}): {remedy}") from error
    # An integer of thousands of digits is a plain ValueError; what is nested too deeply is no ValueError at all.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or delete its folder") from error


@contextmanager
def disk_errors(doing: str, place: Path | None = None) -> Iterator[None]:
    """Turn whatever a disk refuses into one clear line, also where a library has an error of its own for it.

    Args:
        doing: begins the line.
        place: folder that is written to. With it, an error that does not say why is taken for the disk's if the disk
            takes nothing any more.

    Raises:
        UserError: the disk does not take or give something; the message says what was being done, where and why.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = disk_reason(error)
        refused = None if found or isinstance(error, OSError) or place is None else _refusal(place)
        reason, remedy = found or (disk_reason(refused) if refused else None) or (None, None)
        if reason is None:
            raise
        where = getattr(error, "filename", None) or place
        raise UserError(f"{doing}: {reason}{f' ({where})' if where else ''}: {remedy}") from error


def check_output(folder: Path, doing: str) -> None:
    """Refuse a folder to write to, which may not exist yet, before any work is done for it; sweeps it if it is there.

    Args:
        folder: where files will be written; it and its parents are made later.
        doing: begins the message of an error.

    Raises:
        UserError: it cannot be made, nothing can be written there, or it is inside a Core ML package.
    """
    whole = Path(os.path.realpath(folder))
    with disk_errors(doing):
        existing = next(place for place in (whole, *whole.parents) if _exists(place))
        if not existing.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
        longest = os.pathconf(existing, "PC_NAME_MAX")
        if any(len(os.fsencode(part)) > longest for part in whole.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(folder))
        if existing == whole:
            sweep(whole)
        refused = _refusal(existing)
        if refused is not None:
            raise refused
    package = next((place for place in (whole, *whole.parents) if place.suffix == ".mlpackage"), None)
    if package is not None:
        raise UserError(f"{doing}: {folder} is inside the package {package.name}: choose another folder")


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _refusal(folder: Path) -> OSError | None:
    """What the disk says to a file in a folder that is there; None if it takes one."""
    try:
        with temporary_file(folder) as (_, file):
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(error.errno, error.strerror, str(folder))
    return None
