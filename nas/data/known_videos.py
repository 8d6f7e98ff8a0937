"""What was found out about video files, kept on disk so that nobody has to look into them twice.

    <cache>/videos.json    path -> size and time of the file, its header, and the digests of clips of it

A file of another size or time is looked into again. What is lost of this, or damaged, is found out again.
"""

import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from nas.data.clips import Clip
from nas.data.headers import Header, read_header
from nas.machine.files import default_cache_dir, disk_errors, write_bytes
from nas.machine.reading import why

_Row = dict[str, Any]
_Item = TypeVar("_Item")

_MOST = 100_000
"""Files that are remembered; of more, those that were looked into first are forgotten."""
_SETTLED = 2 * 10**9
"""Nanoseconds after which a file that is written to again has another time on every file system."""


class KnownVideos:
    """The files that were looked into before. Used by one thread; what it looks into it reads side by side."""

    def __init__(self, cache: Path | None = None) -> None:
        """Those that are known in a folder of what is computed once; default `default_cache_dir()`."""
        self._path = (cache or default_cache_dir()) / "videos.json"
        self._rows = _read(self._path)
        self._new: dict[str, _Row] = {}

    def headers(self, paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> list[Header]:
        """The headers of files, in this order; of a file that cannot be read one that says why.

        Args:
            paths: the files.
            progress: called with the number of files looked into and of all.

        Raises:
            UserError: the disk does not take what was found out.
        """
        found = []
        with closing(_side_by_side(self._header, paths)) as rows:
            for done, (path, row) in enumerate(zip(paths, rows, strict=True), start=1):
                self._remember(path, row)
                found.append(Header(**row["header"]))
                if progress is not None:
                    progress(done, len(paths))
        self._save()
        return found

    def digests(self, clips: Sequence[Clip]) -> list[str]:
        """`Clip.digest` of clips, in this order. Reads each file whole, but only once.

        Raises:
            UserError: a file cannot be read (any more), or the disk does not take what was found out.
        """
        found = []
        with closing(_side_by_side(self._digest, clips)) as rows:
            for clip, row in zip(clips, rows, strict=True):
                self._remember(clip.path, row)
                found.append(row["digests"][_frames(clip)])
        self._save()
        return found

    def _header(self, path: Path) -> _Row:
        try:
            row = self._row(path)
            if "header" not in row:
                row["header"] = asdict(read_header(path))
        except OSError as error:
            return {"header": asdict(Header(0, 0.0, f"cannot be read ({why(error)})", ""))}
        return row

    def _digest(self, clip: Clip) -> _Row:
        try:
            row = self._row(clip.path)
        except OSError:
            row = {}  # what is wrong is said by whoever reads the file
        known = row.setdefault("digests", {})
        if _frames(clip) not in known:
            row["digests"] = known | {_frames(clip): clip.digest()}
        return row

    def _row(self, path: Path) -> _Row:
        """A copy of what is known of a file as it is now."""
        status = path.stat()
        now = {"size": status.st_size, "time": status.st_mtime_ns}
        row = self._rows.get(_name(path), {})
        return dict(row) if now.items() <= row.items() else now

    def _remember(self, path: Path, row: _Row) -> None:
        """Keep a row of a file that can be read, unless a write in this moment could leave its time as it is."""
        known = self._rows.get(_name(path))
        self._rows[_name(path)] = row
        readable = "time" in row and row.get("header", {}).get("frames") != 0
        if row != known and readable and time.time_ns() - row["time"] > _SETTLED:
            self._new[_name(path)] = row

    def _save(self) -> None:
        """Add what is new to what others may have found out meanwhile."""
        if not self._new:
            return
        rows = {name: row for name, row in _read(self._path).items() if name not in self._new} | self._new
        kept = dict(list(rows.items())[-_MOST:])
        with disk_errors(f"cannot write {self._path}"):
            write_bytes(self._path, json.dumps(kept).encode())
        self._new = {}


def _side_by_side(look: Callable[[_Item], _Row], items: Sequence[_Item]) -> Generator[_Row, None, None]:
    """What was found out about each, in this order."""
    # More than there are cores: most of the time goes by waiting for a disk or a server.
    pool = ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1)))
    try:
        yield from pool.map(look, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _name(path: Path) -> str:
    return str(path.absolute())


def _frames(clip: Clip) -> str:
    return f"{clip.first_frame}:{clip.num_frames}"


def _read(path: Path) -> dict[str, _Row]:
    """What is known; rows that are not as they are written here do not count."""
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: row for name, row in rows.items() if _is_row(row)} if isinstance(rows, dict) else {}


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("digests", {}), dict):
        return False
    header = row.get("header")
    kinds = {"frames": int, "rate": (int, float), "reason": str, "content": str}
    if header is None:
        return True
    return (
        isinstance(header, dict)
        and header.keys() == kinds.keys()
        and all(isinstance(header[name], kind) for name, kind in kinds.items())  # type: ignore[arg-type]
    )
