"""What each phase of a full distillation trains on: clips that are long enough, or it is left out."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nas.data.splits import ClipSet, open_clips
from nas.distillation.phases import Phase, Phases
from nas.distillation.recipes import Crops
from nas.finalize.stretches import open_stretches
from nas.teachers import load_teacher
from tests.support.errors import refusal

PHASES = Phases(
    tuple(
        Phase(name, 10, Crops(32, latents, train=1, score=1), {"feature_weight": 0.0})
        for name, latents in (("frames", 3), ("longer clips", 5))
    )
)


def clips_of(frames: int) -> ClipSet:
    """A clip of so many frames for each split."""
    embedded = open_clips(None, frames)
    return replace(
        embedded,
        train=(replace(embedded.train[0], num_frames=frames),),
        score=(replace(embedded.score[0], num_frames=frames),),
    )


@pytest.mark.parametrize(("frames", "names"), [(17, ["frames", "longer clips"]), (16, ["frames"])])
def test_a_phase_without_clips_is_left_out(
    frames: int, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    printed = io.StringIO()
    found = open_stretches(
        Console(file=printed, width=200), load_teacher("wan-tiny"), clips_of(frames), PHASES, 7, seed=3
    )
    assert [stretch.name for stretch in found] == names
    assert sum(stretch.settings.steps for stretch in found) == 7
    assert [stretch.settings.seed for stretch in found] == [3] * len(names)
    said = "the phase 'longer clips' is left out: it takes clips of 17 frames" in printed.getvalue()
    assert said == (frames == 16)


def test_a_recipe_for_which_no_clip_is_long_enough_is_refused() -> None:
    console = Console(file=io.StringIO())
    said = refusal(lambda: open_stretches(console, load_teacher("wan-tiny"), clips_of(8), PHASES, None, seed=0))
    assert said.startswith("no clip is long enough for the recipe")
