"""Targets: the teacher's latents, frames and features for clips, which students are trained and scored on.

Whoever trains or judges asks `Samples` for batches, and cannot tell whether they were computed before (`ShardSamples`,
made by `nas.data.make_targets`) or are computed as they are asked for (`LiveSamples`, `nas.data.live_samples`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nas.data.order import shuffled
from nas.data.settings import Split
from nas.data.shards import read_row, read_shard
from nas.machine.reading import reading
from nas.teachers import Tap
from nas.terminal.errors import UserError
from search_spaces import LatentSpec


@dataclass(frozen=True)
class TargetBatch:
    """Some samples, stacked; all tensors are float32."""

    latents: Tensor
    """The teacher's latents `(b, c, t, h, w)`, raw."""
    features: dict[str, Tensor]
    """The teacher's features `(b, c, t, h, w)` by tap."""
    video: Tensor | None
    """The video itself, `(b, 3, t', h', w')` in [-1, 1]; None if one of the samples has none, being latents alone."""
    decoded: Tensor | None
    """The teacher's frames, like `video`; None if they were not kept."""

    @property
    def truth(self) -> Tensor:
        """The video itself; UserError if there is none."""
        if self.video is None:
            raise UserError("latents of your own have no video: train on the teacher's frames, with `truth_weight` 0")
        return self.video

    @property
    def frames(self) -> Tensor:
        """The teacher's frames; UserError if they were not kept."""
        if self.decoded is None:
            raise UserError("these targets hold no frames of the teacher: compute them with `frames=True`")
        return self.decoded

    def part(self, first: int, count: int) -> "TargetBatch":
        """`count` samples from the one with index `first` on, or as many as there are."""
        some = slice(first, first + count)
        features = {name: each[some] for name, each in self.features.items()}
        video, decoded = (None if each is None else each[some] for each in (self.video, self.decoded))
        return TargetBatch(self.latents[some], features, video, decoded)


class Samples(Protocol):
    """The samples of one split: what the training loop and the evaluation read."""

    @property
    def clip_names(self) -> tuple[str, ...]:
        """Name of the clip that each sample is from."""

    def __len__(self) -> int:
        """Number of samples."""

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> TargetBatch:
        """The samples with these indices, on this device. Several threads may ask at once."""

    def order(self, step: int, batch_size: int, seed: int) -> list[int]:
        """Indices of the samples that a step trains on; nothing else decides, so that a resumed run agrees."""

    def some(self, count: int) -> list[int]:
        """Indices of at most so many samples that stand for all."""


def stack_rows(rows: Sequence[dict[str, Tensor]], device: torch.device | str) -> TargetBatch:
    """A batch of samples, each as it is kept: tensors without an axis for the batch, in small number formats."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    stacked = {name: torch.stack([row[name] for row in rows]).to(device).float() for name in names}
    features = {name.removeprefix("feature."): each for name, each in stacked.items() if "feature." in name}
    video = stacked["truth"] / 127.5 - 1 if "truth" in stacked else None
    return TargetBatch(stacked["latents"], features, video, stacked.get("frames"))


@dataclass(frozen=True)
class ShardSamples:
    """Samples that were computed before and lie in shards on disk."""

    shards: tuple[Path, ...]
    """Files of the shards."""
    samples: tuple[tuple[int, int], ...]
    """Shard of each sample and its position there."""
    clip_names: tuple[str, ...]
    """Name of the clip that each sample is from."""
    loaded: dict[int, dict[str, Tensor]] | None
    """Tensors of the shards that were read, by shard; None if the set is too large to keep."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads the tensors itself."""
        return self.__dict__ | {"loaded": None if self.loaded is None else {}}

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> TargetBatch:
        """The samples with these indices.

        Raises:
            UserError: a shard is not there any more.
        """
        return stack_rows([self._row(*self.samples[index]) for index in indices], device)

    def order(self, step: int, batch_size: int, seed: int) -> list[int]:
        """Every sample once, shuffled, then all again in a new order; ValueError if there is none."""
        return shuffled(len(self), batch_size, seed, step)

    def some(self, count: int) -> list[int]:
        """Evenly spread ones."""
        count = min(count, len(self))
        return [index * len(self) // count for index in range(count)]

    def _row(self, shard: int, position: int) -> dict[str, Tensor]:
        if self.loaded is not None and shard in self.loaded:
            return {name: tensor[position] for name, tensor in self.loaded[shard].items()}
        with reading(self.shards[shard], "the same command computes what is missing and goes on"):
            if self.loaded is None:
                return read_row(self.shards[shard], position)
            self.loaded[shard] = read_shard(self.shards[shard])
        return self._row(shard, position)


@dataclass(frozen=True)
class Targets:
    """The samples of all splits, and what they have in common."""

    key: str
    """Stands for everything that the samples depend on: teacher, clips, crops, seed."""
    spec: LatentSpec
    """Geometry and statistics of the latents."""
    taps: dict[str, Tap]
    """Places in the teacher's decoder whose features the samples hold."""
    splits: dict[Split, Samples]
    """The samples by what they are for."""

    def split(self, name: Split) -> Samples:
        """The samples to train on, to score on, or to test on."""
        return self.splits[name]
