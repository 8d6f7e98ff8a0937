"""What the contestants are given: clips that the teacher encodes, and latents from files, in decodes of chunks."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nas.data.clips import Clip, read_chunks, to_video
from nas.data.latents_file import find_latents, read_latents
from nas.evaluate.contestants import Contestants
from nas.evaluate.settings import CHUNK, LONGEST_WHOLE, Settings
from nas.machine.memory import memory_limit
from nas.model.pipeline_config import Scaling, known_scaling
from nas.teachers import Teacher
from nas.terminal.errors import UserError
from search_spaces import LatentSpec

Chunk = tuple[Tensor | None, Tensor]
"""Frames of a video `(1, 3, t', h', w')` in [-1, 1], or None where there is none, and latents `(1, c, t, h, w)`."""

_LEAST_SIDE = 16
"""Pixels of the shortest side that metrics take; smaller videos are enlarged."""


class Material(Protocol):
    """A clip, or the latents of one."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    @property
    def num_frames(self) -> int:
        """Number of frames that are judged."""

    def facts(self) -> dict[str, Any]:
        """JSON primitives that tell it from others."""

    def decodes(self, who: Contestants) -> Iterator[Iterator[Chunk]]:
        """Its decodes in the order of time, each as its chunks; a decode has to be taken to its end before the next."""


@dataclass(frozen=True)
class ClipMaterial:
    """A clip that the teacher encodes."""

    clip: Clip
    """The clip."""
    settings: Settings
    """What of it is judged."""
    pieces: tuple[tuple[int, ...], ...]
    """Number of frames of each chunk of each decode."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.clip.name

    @property
    def num_frames(self) -> int:
        """Number of frames that are judged."""
        return sum(map(sum, self.pieces))

    def facts(self) -> dict[str, Any]:
        """The file and its decodes."""
        return {"name": self.name, "sha256": self.clip.digest(), "frames": [sum(pieces) for pieces in self.pieces]}

    def decodes(self, who: Contestants) -> Iterator[Iterator[Chunk]]:
        """The file is read once; what is left out is at its end."""
        chunks = read_chunks(self.clip, 0, [count for pieces in self.pieces for count in pieces])
        generator = torch.Generator().manual_seed(_seed(self.settings.seed, self.name))
        for pieces in self.pieces:
            yield self._decode(who, chunks, len(pieces), generator)

    def _decode(
        self, who: Contestants, frames: Iterator[np.ndarray], count: int, generator: torch.Generator
    ) -> Iterator[Chunk]:
        state = None
        for _ in range(count):
            video = view(next(frames), self.settings, who.teacher.spec)
            if not who.streamed:
                _refuse_without_memory(who.teacher, *video.shape[2:])
            latents, state = who.encoder(video.to(who.teacher.device), state)
            if self.settings.noise:
                yield None, latents + self.settings.noise * _noise(latents, scaling_of(who), generator)
            else:
                yield video.to(latents.device), latents


@dataclass(frozen=True)
class LatentsMaterial:
    """Latents of a file, as a diffusion model gives them; there is no video to them."""

    path: Path
    """The file."""
    index: int
    """Which of the batch."""
    batch: int
    """How many there are in the file."""
    num_frames: int
    """Number of frames that they decode to."""
    normalised: bool
    """Whether they have unit scale, as within a diffusion pipeline, or are as `decode` takes them."""

    @property
    def name(self) -> str:
        """Name of the file, with the index if there are several in it."""
        return self.path.name if self.batch == 1 else f"{self.path.name}[{self.index}]"

    def facts(self) -> dict[str, Any]:
        """The file and its decode."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"name": self.name, "sha256": digest, "frames": [self.num_frames]}

    def decodes(self, who: Contestants) -> Iterator[Iterator[Chunk]]:
        """One."""
        latents = read_latents(self.path, who.teacher.spec)[self.index : self.index + 1].to(who.teacher.device)
        if not who.streamed:
            sides = (side * who.teacher.spec.spatial for side in latents.shape[3:])
            _refuse_without_memory(who.teacher, self.num_frames, *sides)
        if self.normalised:
            latents = scaling_of(who).to_raw(latents)
        yield ((None, chunk) for chunk in torch.split(latents, CHUNK if who.streamed else latents.shape[2], dim=2))


def clip_material(clips: Sequence[Clip], settings: Settings, who: Contestants) -> list[Material]:
    """Clips that are long enough, in decodes and chunks.

    Raises:
        UserError: a size that is not on the teacher's grid.
    """
    spec = who.teacher.spec
    if settings.crop and settings.crop % spec.spatial:
        below = settings.crop // spec.spatial * spec.spatial
        nearest = f"{max(below, spec.spatial)} and {below + spec.spatial}"
        raise UserError(f"--crop {settings.crop}: expected a multiple of {spec.spatial}, the nearest are {nearest}")
    found: list[Material] = []
    for clip in clips:
        sizes = _sizes(clip.num_frames, settings, who)
        pieces = tuple(_pieces(size, spec) if who.streamed else (size,) for size in sizes)
        found.append(ClipMaterial(clip, settings, pieces))
    return found


def latents_material(path: Path, who: Contestants, *, normalised: bool) -> list[Material]:
    """All latents of a file or of the files of a folder, each looked into.

    Raises:
        UserError: a file that cannot be used, or normalised latents of which the scaling is not known.
    """
    if normalised:
        scaling_of(who)
    found: list[Material] = []
    for file in find_latents(path):
        latents = read_latents(file, who.teacher.spec)
        if latents.shape[2] < who.teacher.least_latents:
            raise UserError(f"{file} has {latents.shape[2]} latent frames, {who.teacher.least_latents} are needed")
        if min(latents.shape[3:]) * who.teacher.spec.spatial < _LEAST_SIDE:
            raise UserError(
                f"{file} has latents of {latents.shape[3]}x{latents.shape[4]}: frames of at least "
                f"{_LEAST_SIDE}x{_LEAST_SIDE} pixels can be judged"
            )
        frames = who.teacher.spec.num_frames(latents.shape[2])
        found += [LatentsMaterial(file, index, len(latents), frames, normalised) for index in range(len(latents))]
    return found


def least_frames(who: Contestants) -> int:
    """Frames of the shortest decode: two latent frames, so that there is a change to judge."""
    return who.teacher.spec.num_frames(max(2, who.teacher.least_latents))


def scaling_of(who: Contestants) -> Scaling:
    """How a pipeline brings the teacher's latents to unit scale.

    Raises:
        UserError: it is not known.
    """
    scaling = known_scaling(who.teacher.spec, who.teacher.name)
    if scaling is None:
        raise UserError(
            f"the scaling of the latents of {who.teacher.name} is not known: give raw latents, without noise"
        )
    return scaling


def view(frames: np.ndarray, settings: Settings, spec: LatentSpec) -> Tensor:
    """uint8 `(t, h, w, 3)` -> what of it is judged, `(1, 3, t, h', w')` in [-1, 1]: resized, then cut out centrally."""
    least = max(settings.crop, settings.short_side, spec.spatial, _LEAST_SIDE)
    video = to_video(frames, least, reduce=settings.short_side > 0)
    height, width = (settings.crop or side // spec.spatial * spec.spatial for side in video.shape[3:])
    top, left = (video.shape[3] - height) // 2, (video.shape[4] - width) // 2
    return video[:, :, :, top : top + height, left : left + width]


def _sizes(num_frames: int, settings: Settings, who: Contestants) -> list[int]:
    """Frames of each decode of a clip; what is too short at its end is left out."""
    spec, least = who.teacher.spec, least_frames(who)
    longest = settings.frames or (num_frames if who.streamed else LONGEST_WHOLE)
    sizes: list[int] = []
    rest = num_frames
    while rest >= least and not (sizes and settings.first_only):
        sizes.append(spec.largest_clip(min(longest, rest)))
        rest -= sizes[-1]
    return sizes


def _pieces(num_frames: int, spec: LatentSpec) -> tuple[int, ...]:
    """Frames of each chunk of a decode that is streamed."""
    latents = spec.num_latents(num_frames)
    ends = [spec.num_frames(min(last, latents)) for last in range(CHUNK, latents + CHUNK, CHUNK)]
    return tuple(end - start for start, end in zip([0, *ends[:-1]], ends, strict=True))


@cache
def _refuse_without_memory(teacher: Teacher, frames: int, height: int, width: int) -> None:
    """UserError if the teacher needs more memory for a whole decode of this size than there is."""
    needed, there = teacher.memory(frames, height, width), memory_limit(teacher.device)
    if needed > there:
        raise UserError(
            f"{teacher.name} needs about {needed / 1e9:.1f} GB of memory for {frames} frames of {height}x{width}, and "
            f"{teacher.device.type} has {there / 1e9:.1f} GB: give a smaller --crop, fewer --frames or smaller latents"
        )


def _noise(latents: Tensor, scaling: Scaling, generator: torch.Generator) -> Tensor:
    """Gaussian noise with the standard deviation of each channel, drawn frame by frame: chunks change nothing."""
    shape = (*latents.shape[:2], 1, *latents.shape[3:])
    drawn = [torch.randn(shape, generator=generator) for _ in range(latents.shape[2])]
    _, std = scaling.statistics(latents.shape[1])
    return (torch.cat(drawn, dim=2) * torch.tensor(std).view(1, -1, 1, 1, 1)).to(latents)


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7])
