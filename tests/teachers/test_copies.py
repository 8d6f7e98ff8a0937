"""Copies of every teacher compute side by side what the original computes alone, to the last bit."""

import torch
from torch import Tensor

from nas.data.side_by_side import each_with_a_teacher
from nas.teachers import Teacher
from tests.support.small_teachers import random_video


def everything(teacher: Teacher, seed: int) -> list[Tensor]:
    """Latents, features without the rest of the decode, frames and features."""
    frames, size = teacher.spec.num_frames(max(3, teacher.least_latents)), 2 * teacher.spec.spatial
    taps = teacher.tap_names[:2]
    latents = teacher.encode(random_video(frames, size, size) / (1 + seed))
    features = teacher.features(latents, taps)
    video, more = teacher.decode_with_features(latents, taps)
    return [latents, *features.values(), video, *more.values()]


def test_copies_compute_what_the_original_does(teacher: Teacher) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = [everything(teacher, seed) for seed in range(3)]
        found = each_with_a_teacher(teacher, range(3), everything, 3)
    finally:
        torch.set_num_threads(threads)
    assert len(alone[0]) == 6
    for mine, theirs in zip(found, alone, strict=True):
        assert all(map(torch.equal, mine, theirs))
