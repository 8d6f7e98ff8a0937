"""Lists of videos: a path on each line (.txt), a table (.csv) or an object on each line (.jsonl).

Tables and objects have a `path`, and if wanted a `start` and a `length` in seconds; what else they have is left alone.
Paths are relative to the list.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.machine.reading import reading
from nas.terminal.errors import UserError

_ADVICE = "expected a folder of videos, or a list of them (.txt, .csv, .jsonl)"


@dataclass(frozen=True)
class Listed:
    """A video, or a part of one, that somebody wants to be used."""

    path: Path
    """The file."""
    start: float = 0.0
    """Second at which the part begins."""
    length: float | None = None
    """Seconds of the part; None: to the end."""


def read_list(path: Path) -> list[Listed]:
    """What a list holds, in its order.

    Raises:
        UserError: it is no such list, a line of it is not as it has to be, or it is empty.
    """
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise UserError(f"--clips {path} is a file, but no list: {_ADVICE}")
    with reading(path, _ADVICE):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a list in UTF-8 ({error.reason} at byte {error.start}): {_ADVICE}") from error
    found = [_listed(path, line, fields) for line, fields in _KINDS[kind](path, text)]
    if not found:
        raise UserError(f"{path} lists no video: expected a path on each line")
    return found


def _lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, {"path": line.strip()}


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        if "path" not in (table.fieldnames or []):
            raise UserError(f"{path} has no column 'path': expected a first line such as path,start,length")
        for row in table:
            # An empty cell is what a table has in place of no value.
            yield table.line_num, {name: value for name, value in row.items() if value}
    except csv.Error as error:
        raise UserError(f"{path}, line {table.line_num} is not CSV ({error}): correct it") from error


def _objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON ({error}): expected one object on each line") from error
        if not isinstance(fields, dict):
            raise UserError(f'{path}, line {number} is no object: expected such as {{"path": "a.mp4"}}')
        yield number, fields


_KINDS: dict[str, Callable[[Path, str], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".txt": _lines,
    ".csv": _rows,
    ".jsonl": _objects,
}
"""What reads a list with this ending: numbers of lines and what they say."""


def _listed(path: Path, line: int, fields: dict[str, Any]) -> Listed:
    name = fields.get("path")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise UserError(f"{path}, line {line} has no 'path': expected the path of a video")
    start = _seconds(path, line, "start", fields.get("start"))
    length = _seconds(path, line, "length", fields.get("length"))
    if length == 0:
        raise UserError(f"{path}, line {line} has the length 0: expected more seconds, or none to use the whole video")
    return Listed(path.parent / name.strip(), start or 0.0, length)


def _seconds(path: Path, line: int, name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise UserError(f"{path}, line {line} has the {name} {value!r}: expected seconds, 0 or more")
    return seconds
