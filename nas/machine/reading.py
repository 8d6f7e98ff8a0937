"""Reading what others wrote: paths that cannot be read and JSON that is none end in one clear line."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nas.terminal.disk_reasons import disk_reason
from nas.terminal.errors import UserError, one_line


@contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """Turn what the system says against reading `path` into one line that ends with `advice`.

    Raises:
        UserError: permission is denied, the name is too long, a folder is in place of a file, the disk fails, ...
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read ({why(error)}): {advice}") from error


@contextmanager
def understanding(path: Path, remedy: str) -> Iterator[None]:
    """Turn what goes wrong while something is made of what `path` holds, which this program wrote, into one line.

    Raises:
        UserError: something in it is missing, unknown, or of another kind.
    """
    try:
        yield
    except UserError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UserError(f"{path} is damaged or of another version of this program ({reason}): {remedy}") from error


def why(error: OSError) -> str:
    """What the system says against it, in words."""
    known = disk_reason(error)
    return known[0] if known else error.strerror or str(error)


def real_path(path: Path) -> Path:
    """The path without links, absolute; what it leads to need not be there.

    Raises:
        UserError: links lead in a circle, or a part of it may not be read.
    """
    with reading(path, "give another path"):
        try:
            return path.resolve()
        except RuntimeError as error:  # Python's own word for a circle, before 3.13
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error


def read_foreign_json(path: Path, advice: str, what: str = "valid JSON") -> Any:
    """What a JSON file holds that another program or a person may have written: a byte-order mark is no part of it.

    Numbers that are not finite are no JSON, though many programs write them, and nothing here computes with them.

    Raises:
        UserError: it cannot be read or is not JSON; the line says that it is not `what` and ends with `advice`.
    """
    with reading(path, advice):
        data = path.read_bytes()
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of thousands of digits
        raise UserError(f"{path} is not {what} ({error}): {advice}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
