"""Latents of the user's in a full distillation: what is refused, and what a model says of them."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from nas.data.splits import ClipSet, open_clips
from nas.distillation.distill import distill
from nas.distillation.initialise import build
from nas.distillation.phases import Phase, Phases, load_phases
from nas.distillation.recipes import Crops
from nas.finalize.latents import open_user_latents
from nas.finalize.stretches import open_stretches
from nas.teachers import Teacher, load_teacher
from tests.support.errors import refusal
from tests.support.small_targets import CONFIG

SETTINGS = {"feature_weight": 0.0, "batch_size": 2, "adversarial_weight": 0.1}
PHASES = Phases(
    (
        Phase("frames", 2, Crops(32, 2, train=1, score=1), SETTINGS),
        Phase("longer clips", 2, Crops(32, 3, train=1, score=1), SETTINGS),
    )
)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (noise(1, 4, 3, 4, 4), "has latents of shape (1, 4, 3, 4, 4): expected latents (b, 16, t, h, w)"),
        (noise(1, 16, 3, 4, 4) / 0, "has latents that are not finite"),
        (
            noise(1, 16, 1, 4, 4),
            "has latents of 1x4x4 (t, h, w), too small for a crop: expected at least 2x4x4 ('frames'), 3x4x4 ('longer "
            "clips')",
        ),
        (noise(1, 16, 5, 3, 9), "has latents of 5x3x9 (t, h, w), too small for a crop: expected at least 2x4x4"),
        (None, "no latents in"),
    ],
    ids=["channels", "infinite", "short", "narrow", "empty"],
)
def test_what_cannot_be_trained_on_is_refused(
    latents: Tensor | None, message: str, teacher: Teacher, tmp_path: Path
) -> None:
    if latents is not None:
        torch.save(noise(1, 16, 3, 4, 4), tmp_path / "a.pt")
        torch.save(latents, tmp_path / "b.pt")
    found = refusal(lambda: open_user_latents(quiet(), tmp_path, teacher, PHASES))
    assert message in found and found.startswith("no latents in" if latents is None else str(tmp_path / "b.pt"))


def test_a_phase_that_asks_for_the_video_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    """Before anything is looked into."""
    found = refusal(lambda: open_user_latents(quiet(), tmp_path / "none", teacher, load_phases("paper")))
    assert found.startswith("the phase 'stage 1' has a truth_weight, and --latents have no video")


def test_crops_off_the_grid_are_refused(teacher: Teacher, tmp_path: Path) -> None:
    torch.save(noise(1, 16, 3, 8, 8), tmp_path / "a.pt")
    odd = Phases((Phase("odd", 2, Crops(33, 2, train=1, score=1), {}),))
    found = refusal(lambda: open_user_latents(quiet(), tmp_path, teacher, odd))
    assert found.startswith("crops of the phase 'odd' do not fit wan-tiny")


@pytest.fixture(scope="module")
def clips() -> ClipSet:
    found = open_clips(None, 9)
    return replace(found, train=found.train[:1], score=found.score[:1])


def test_a_phase_trains_on_those_that_are_large_enough(
    teacher: Teacher, clips: ClipSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a critic, and to the same weights if it is done again."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    torch.save(noise(2, 16, 3, 4, 5), tmp_path / "long.pt")
    torch.save(noise(16, 2, 4, 4), tmp_path / "short.pt")
    console = quiet()
    latents = open_user_latents(console, tmp_path, teacher, PHASES)
    assert f"{tmp_path}: 3 to train on" in said(console)
    stretches = open_stretches(console, teacher, replace(clips, latents=latents), PHASES, None, seed=0)
    assert "the phase 'longer clips' goes without 1 of --latents: its crops are of 3x4x4 latents" in said(console)
    assert [len(stretch.targets.split("train")) for stretch in stretches] == [4, 3]
    weights = []
    for _ in range(2):
        student = build(replace(CONFIG, latents=teacher.spec, stages=(*CONFIG.stages, CONFIG.stages[1])), 0)
        weights.append(distill(student, stretches[0].targets, stretches[0].settings, device="cpu").decoder.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
