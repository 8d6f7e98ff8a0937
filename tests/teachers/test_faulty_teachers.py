"""A faulty teacher must be caught: each fault, and the check of the contract that says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.teachers.teacher import Tap, Teacher
from nas.teachers.wan import WanTeacher
from nas.teachers.weights import local_weights
from nas.testing import TEACHER_CHECKS, check_teacher
from search_spaces import LatentSpec
from tests.support.small_teachers import make_weights


class Samples(WanTeacher):
    """Encodes to a sample."""

    def run_encoder(self, model: Any, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        latents: Tensor = model.encode(video).latent_dist.sample()
        return latents


class OneFrameMore(WanTeacher):
    """Repeats its last frame."""

    def run_decoder(self, model: Any, latents: Tensor) -> Tensor:
        frames = super().run_decoder(model, latents)
        return torch.cat([frames, frames[:, :, -1:]], dim=2)


class HalfAFeature(WanTeacher):
    """Its features are on another grid than its taps say."""

    @property
    def taps(self) -> dict[str, Tap]:
        return {name: Tap(tap.channels, tap.temporal, 2 * tap.spatial) for name, tap in super().taps.items()}


class Still(WanTeacher):
    """Says that its latents have no time, and looks at the frame before."""

    @property
    def spec(self) -> LatentSpec:
        return LatentSpec(channels=16, spatial=8, temporal=1)

    def run_decoder(self, model: Any, latents: Tensor) -> Tensor:
        frames = super().run_decoder(model, latents)
        return frames[:, :, ::4]


FAULTS: tuple[tuple[type[Teacher], str, str], ...] = (
    (Samples, "round_trip", "encodes to a sample, not to the mode"),
    (OneFrameMore, "frames", "decodes 1 latent frames to (1, 3, 2, 16, 24), not (1, 3, 1, 16, 24)"),
    (HalfAFeature, "taps", "has features (1, 32, 3, 3, 2) at mid_block, not (1, 32, 3, 6, 4)"),
    (Still, "images", "decodes a frame in a clip to something else than the frame alone"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small Wan."""
    return make_weights("wan", tmp_path_factory.mktemp("faulty") / "wan")


def small(kind: type[Teacher], folder: Path) -> Teacher:
    return kind("faulty", str(folder), "none", local_weights(folder, kind.class_name, {}), "cpu")


@pytest.mark.parametrize(("kind", "check", "message"), FAULTS, ids=[row[0].__name__ for row in FAULTS])
def test_a_faulty_teacher_is_caught(kind: type[Teacher], check: str, message: str, folder: Path) -> None:
    teacher = small(kind, folder)
    if kind is Still:
        teacher.encode = lambda video, generator=None: video  # type: ignore[method-assign]
    with pytest.raises(AssertionError) as caught:
        TEACHER_CHECKS[check](teacher)
    assert str(caught.value) == f"teacher 'faulty' {message}"


def test_a_healthy_teacher_passes(folder: Path) -> None:
    check_teacher(small(WanTeacher, folder))
