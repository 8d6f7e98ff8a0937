"""Writing files so that a kill at any moment leaves the old one or the new one, never half of it."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.terminal.errors import UserError

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


def default_cache_dir() -> Path:
    """Folder of what can be computed again when it is lost: `$NAS_CACHE`, else `~/.cache/turbo-vaed-nas`."""
    return Path(os.environ.get("NAS_CACHE") or Path.home() / ".cache" / "turbo-vaed-nas")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one step (temporary file, flush to disk, rename); its folder is made if need be.

    Raises:
        OSError: the disk does not take it (see `disk_errors`); the old file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON in one step.

    Raises:
        OSError: as `write_bytes`.
    """
    write_bytes(path, (json.dumps(data, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """What the JSON file at `path` holds.

    Raises:
        UserError: the file is not valid JSON; the message names it.
    """
    try:
        return json.loads(path.read_text())
    # An integer of thousands of digits is a plain ValueError; what is nested too deeply is no ValueError at all.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or delete its folder") from error


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn the errors of a full, read-only or forbidden disk into one clear line; `doing` begins it.

    Raises:
        UserError: the disk does not take something; the message says what was being done and where.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        reason = _DISK_ERRORS[error.errno]
        raise UserError(f"{doing}: {reason}{where}: free space or choose another folder") from error
