"""Reading what others wrote: paths that cannot be read and JSON that is none end in one clear line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nas.terminal.errors import UserError


@contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """Turn what the system says against reading `path` into one line that ends with `advice`.

    Raises:
        UserError: permission is denied, the name is too long, a folder is in place of a file, the disk fails, ...
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read ({error.strerror or error}): {advice}") from error


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
