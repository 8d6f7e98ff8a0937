"""A folder of crops with a bound: what has not been used for longest makes room for what is new.

    <folder>/<name>.safetensors   one crop

Several processes may share it, and whatever is lost is only computed again.
"""

import os
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from nas.data.shards import read_shard, write_shard
from nas.machine.files import disk_errors

_ROOM = 0.9
"""Share of the bound that is kept once it was reached."""


class CropCache:
    """Named tensors of crops, on disk.

    Args:
        folder: where they lie.
        max_bytes: how much they take together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def read(self, name: str) -> dict[str, Tensor] | None:
        """A crop; None if it is not there (any more) or not whole. That costs its computation, no more."""
        path = self._path(name)
        try:
            found = read_shard(path)
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return found

    def write(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep a crop (tensors on the CPU, contiguous).

        Raises:
            UserError: the disk does not take it.
        """
        with disk_errors("cannot keep a crop"):
            self._make_room(sum(tensor.nbytes for tensor in tensors.values()))
            write_shard(self._path(name), tensors)

    @property
    def held(self) -> int:
        """Bytes that it takes now."""
        return sum(size for _, size, _ in self._list())

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest, until there is room for so many bytes."""
        there = self._list()
        held = sum(size for _, size, _ in there)
        if held + size <= self.max_bytes:
            return
        for _, freed, path in sorted(there):
            if held + size <= _ROOM * self.max_bytes:
                break
            path.unlink(missing_ok=True)
            held -= freed

    def _list(self) -> list[tuple[int, int, Path]]:
        """When each crop was used last, its bytes and its file."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process made room
                continue
            found.append((status.st_mtime_ns, status.st_size, path))
        return found

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
