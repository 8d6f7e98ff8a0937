"""Crops of clips, in space and time: where they are, and their pixels."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from nas.data.clips import Clip, read_runs, scaled, to_video
from nas.data.latent_clips import LatentClip
from nas.data.plan import Part
from nas.data.scene_cuts import has_cut
from nas.data.settings import TargetSettings
from nas.data.video_file import first_display


class Crop(NamedTuple):
    """A crop of a clip, or of latents of one."""

    number: int
    """Which of those of the clip it is."""
    video: Tensor | None = None
    """Its pixels, `(1, 3, t, h, w)` in [-1, 1]; None if there are only latents."""
    latents: Tensor | None = None
    """Its latents, `(1, c, t, h, w)`, if they are not to be made of a video."""
    has_cut: bool = False
    """Whether there is a scene cut in it."""
    noise_seed: int | None = None
    """Seed of the noise that makes its latents a sample of the encoder's distribution; None: they are the mode."""


def draw_crops(
    part: Part, digest: str, settings: TargetSettings, room: tuple[int, int, int]
) -> list[tuple[int, int, int]]:
    """First frame, top and left of each crop; if not to train on the first is central and begins with the clip.

    Args:
        part: what is cut; with more crops of it the first ones stay where they are.
        digest: what stands for the content of its clip. Nothing but this and the seed is chance.
        settings: whose seed it is.
        room: by how much the clip is longer, higher and wider than a crop.
    """
    random = part.split == "train"
    generator = np.random.default_rng(_seed(f"{settings.seed} {digest}"))
    crops = []
    for index in range(part.crops):
        first = int(generator.integers(room[0] + 1)) if random or index else 0
        central = not random and index == 0
        y, x = (each // 2 if central else int(generator.integers(each + 1)) for each in room[1:])
        crops.append((first, y, x))
    return crops


def cut_crops(
    part: Part, digest: str, settings: TargetSettings, numbers: Sequence[int] | None = None
) -> Iterator[Crop]:
    """The crops of a clip, in the order in which they are in the video; of latents in that of their numbers.

    Args:
        part, digest: as for `draw_crops`.
        settings: how large crops are, the seed, and whether latents are samples.
        numbers: of the crops that are wanted; None for all.

    Raises:
        NoPictureError: the video breaks off.
        UserError: the latents are not what they were.
    """
    if isinstance(part.clip, LatentClip):
        return _cut_latents(part, part.clip, digest, settings, numbers)
    return _cut_video(part, part.clip, digest, settings, numbers)


def _cut_latents(
    part: Part, clip: LatentClip, digest: str, settings: TargetSettings, numbers: Sequence[int] | None
) -> Iterator[Crop]:
    sides = clip.crop_size(settings.num_frames, settings.crop)
    t, h, w = (whole - side for whole, side in zip(clip.size, sides, strict=True))
    crops, latents = draw_crops(part, digest, settings, (t, h, w)), clip.read()
    for number in range(len(crops)) if numbers is None else numbers:
        cut = tuple(slice(at, at + side) for at, side in zip(crops[number], sides, strict=True))
        yield Crop(number, latents=latents[:, :, *cut])


def _cut_video(
    part: Part, clip: Clip, digest: str, settings: TargetSettings, numbers: Sequence[int] | None
) -> Iterator[Crop]:
    shown, size = first_display(clip.path), settings.crop
    height, width = scaled(*shown.upright, size)
    room = (clip.num_frames - settings.num_frames, height - size, width - size)
    crops = draw_crops(part, digest, settings, room)
    sampled = settings.sampled and part.split == "train"
    wanted = range(len(crops)) if numbers is None else numbers
    firsts = [crops[number][0] for number in wanted]
    for index, frames in read_runs(clip, firsts, settings.num_frames, shown):
        number, cut = wanted[index], has_cut(frames)
        _, y, x = crops[number]
        noise = _seed(f"{settings.seed} {digest} noise {number}") if sampled else None
        if min(shown.upright) >= size:  # the rest need not be converted
            video = to_video(frames[:, y : y + size, x : x + size])
        else:
            video = to_video(frames, size)[..., y : y + size, x : x + size]
        yield Crop(number, video, has_cut=cut, noise_seed=noise)


def _seed(content: str) -> int:
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8])
