"""Crops of clips, in space and time: where they are, and their pixels."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from nas.data.clips import read_runs, scaled, to_video
from nas.data.plan import Part
from nas.data.scene_cuts import has_cut
from nas.data.settings import TargetSettings
from nas.data.video_file import first_display


class Crop(NamedTuple):
    """A crop of a clip."""

    number: int
    """Which of those of the clip it is."""
    video: Tensor
    """Its pixels, `(1, 3, t, h, w)` in [-1, 1]."""
    has_cut: bool
    """Whether there is a scene cut in it."""
    noise_seed: int | None
    """Seed of the noise that makes its latents a sample of the encoder's distribution; None: they are the mode."""


def draw_crops(
    part: Part, digest: str, settings: TargetSettings, height: int, width: int
) -> list[tuple[int, int, int]]:
    """First frame, top and left of each crop; if not to train on the first is central and begins with the clip.

    Args:
        part: what is cut; with more crops of it the first ones stay where they are.
        digest: what stands for the content of its clip. Nothing but this and the seed is chance.
        settings: how large crops are, and the seed.
        height: of the clip in pixels, at least that of a crop.
        width: as `height`.
    """
    random = part.split == "train"
    generator = np.random.default_rng(_seed(f"{settings.seed} {digest}"))
    crops = []
    for index in range(part.crops):
        room = part.clip.num_frames - settings.num_frames
        first = int(generator.integers(room + 1)) if random or index else 0
        space = (height - settings.crop, width - settings.crop)
        central = not random and index == 0
        y, x = (each // 2 if central else int(generator.integers(each + 1)) for each in space)
        crops.append((first, y, x))
    return crops


def cut_crops(
    part: Part, digest: str, settings: TargetSettings, numbers: Sequence[int] | None = None
) -> Iterator[Crop]:
    """The crops of a clip, in the order in which they are in the video.

    Args:
        part, digest, settings: as for `draw_crops`.
        numbers: of the crops that are wanted; None for all.

    Raises:
        NoPictureError: the video breaks off.
    """
    shown, size = first_display(part.clip.path), settings.crop
    crops = draw_crops(part, digest, settings, *scaled(*shown.upright, size))
    sampled = settings.sampled and part.split == "train"
    wanted = range(len(crops)) if numbers is None else numbers
    firsts = [crops[number][0] for number in wanted]
    for index, frames in read_runs(part.clip, firsts, settings.num_frames, shown):
        number, cut = wanted[index], has_cut(frames)
        _, y, x = crops[number]
        noise = _seed(f"{settings.seed} {digest} noise {number}") if sampled else None
        if min(shown.upright) >= size:  # the rest need not be converted
            yield Crop(number, to_video(frames[:, y : y + size, x : x + size]), cut, noise)
        else:
            yield Crop(number, to_video(frames, size)[..., y : y + size, x : x + size], cut, noise)


def _seed(content: str) -> int:
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8])
