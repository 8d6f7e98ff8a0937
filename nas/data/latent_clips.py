"""Latents of the user's as clips to train on: there is no video of them, only what the teacher makes of them."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from nas.data.latents_file import find_latents, read_latents
from nas.terminal.errors import UserError
from search_spaces import LatentSpec

_read = lru_cache(maxsize=1)(read_latents)
"""A file may hold the latents of many clips, which are read one after the other."""


@dataclass(frozen=True)
class LatentClip:
    """The latents of one clip in a file."""

    path: Path
    """The file."""
    index: int
    """Which of the batch they are."""
    batch: int
    """How many clips there are in the file."""
    spec: LatentSpec
    """Geometry of the latents of the teacher that decodes them."""
    size: tuple[int, int, int]
    """Latent frames, height and width."""
    content: str
    """SHA-256 of their values, whatever file they are in."""

    @property
    def name(self) -> str:
        """File name, with the index if there are several in it."""
        return self.path.name if self.batch == 1 else f"{self.path.name}[{self.index}]"

    @property
    def identity(self) -> str:
        """What stands for their content."""
        return self.content

    def digest(self) -> str:
        """The same."""
        return self.content

    def holds(self, num_frames: int, crop: int) -> bool:
        """Whether a crop of so many frames, and pixels squared, fits into what they decode to."""
        wanted = self.crop_size(num_frames, crop)
        return all(least <= side for least, side in zip(wanted, self.size, strict=True))

    def crop_size(self, num_frames: int, crop: int) -> tuple[int, int, int]:
        """Latent frames, height and width of a crop of so many frames and pixels squared."""
        return self.spec.latent_shape(num_frames, crop, crop)[1:]

    def read(self) -> Tensor:
        """The latents, float32 `(1, c, t, h, w)`, raw.

        Raises:
            UserError: the file cannot be read (any more), or holds others than it did.
        """
        found = _read(self.path, self.spec)[self.index : self.index + 1]
        if _digest(found) != self.content:
            raise UserError(f"{self.path} has changed meanwhile: restore it, or start anew")
        return found


def open_latents(path: Path, spec: LatentSpec) -> tuple[LatentClip, ...]:
    """The latents of a file, or of all files in a folder, each looked into.

    Args:
        path: as for `find_latents`.
        spec: of the teacher that decodes them.

    Raises:
        UserError: nothing is there, or a file is not as `read_latents` takes it.
    """
    _read.cache_clear()  # a file may be another than the last time
    found = []
    for file in find_latents(path):
        latents = _read(file, spec)
        for index in range(len(latents)):
            one = latents[index : index + 1]
            size = (one.shape[2], one.shape[3], one.shape[4])
            found.append(LatentClip(file, index, len(latents), spec, size, _digest(one)))
    return tuple(found)


def _digest(latents: Tensor) -> str:
    digest = hashlib.sha256(f"latents {tuple(latents.shape)}".encode())
    digest.update(latents.contiguous().numpy().data.cast("B"))
    return digest.hexdigest()
