"""rFVD: how far the first frames of decoded clips are, as a set, from those of the videos, for a network of actions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.metrics import VIDEO_RANGE, frechet_distance
from nas.metrics.i3d import I3D, LEAST_FRAMES, for_i3d

FRAMES = 17
"""Frames of a clip that count, as Turbo-VAED (arXiv 2508.09136) has it, or all that there are."""


class FirstFrames:
    """Collects the first frames of one clip, chunk by chunk, as several decoders give them."""

    def __init__(self) -> None:
        self._chunks: list[list[Tensor]] = []
        self._count = 0

    def add(self, videos: Sequence[Tensor]) -> None:
        """The next frames of every decoder, `(1, 3, t, h, w)` in [-1, 1]; what comes after the first 17 is left out."""
        if not self._chunks:
            self._chunks = [[] for _ in videos]
        wanted = FRAMES - self._count
        if wanted > 0:
            for kept, video in zip(self._chunks, videos, strict=True):
                kept.append(for_i3d(video[:, :, :wanted].clamp(-1, 1), VIDEO_RANGE))
            self._count += videos[0].shape[2]

    @torch.inference_mode()
    def features(self, network: I3D) -> Tensor | None:
        """What the network answers to each of them, `(decoders, 400)`; None of fewer than 9 frames."""
        if self._count < LEAST_FRAMES:
            return None
        return torch.cat([network(torch.cat(kept, dim=2)).cpu() for kept in self._chunks])


def distance(features: Sequence[Tensor | None], decoder: int, reference: int) -> tuple[float, int] | None:
    """rFVD of one decoder from another over all clips, and how many those are; None if fewer than two have features.

    Args:
        features: of every clip, from `FirstFrames.features`.
        decoder: row of the one that is judged.
        reference: row of what it is compared with.
    """
    known = [each for each in features if each is not None]
    if len(known) < 2:
        return None
    rows = torch.stack(known)
    return frechet_distance(rows[:, decoder], rows[:, reference]), len(known)
