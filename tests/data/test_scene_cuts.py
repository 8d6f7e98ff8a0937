"""Scene cuts within a sample: seen where another scene begins, not where something moves; counted with the targets."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from nas.data.clips import read_frames
from nas.data.make_targets import open_targets
from nas.data.scene_cuts import has_cut
from nas.data.settings import TargetSettings
from nas.data.splits import open_clips
from nas.teachers import load_teacher
from tests.support.videos import make_frames, write_frames

SETTINGS = TargetSettings(crop=16, num_frames=5, train_crops=2, score_crops=1, test_crops=1, taps=())


def embedded() -> list[np.ndarray]:
    """The first seventeen frames of each embedded clip."""
    clips = open_clips(None, 17)
    return [read_frames(clip, 0, 17) for clip in (*clips.train, *clips.score, *clips.test)]


def test_real_videos_without_cuts_have_none() -> None:
    assert not any(has_cut(frames) for frames in embedded())


@pytest.mark.parametrize("at", [1, 8, 16])
def test_another_scene_is_seen_wherever_it_begins(at: int) -> None:
    scenes = embedded()
    seen = []
    for one, other in itertools.pairwise(scenes):
        height, width = (min(one.shape[axis], other.shape[axis]) for axis in (1, 2))
        joined = np.concatenate([one[:at, :height, :width], other[at:, :height, :width]])
        seen.append(has_cut(joined))
    assert sum(seen) >= len(seen) - 1, seen


def test_light_that_changes_slowly_is_no_cut() -> None:
    still = embedded()[0][0]
    fade = np.stack([np.clip(still * (0.2 + step / 20), 0, 255).astype(np.uint8) for step in range(17)])
    assert not has_cut(fade) and not has_cut(fade[:1]) and not has_cut(fade[:2])


def test_crops_with_a_cut_are_counted(tmp_path: Path) -> None:
    """Each time that the targets are opened, also when nothing is computed."""
    for number in range(6):
        dark, light = make_frames(15, video=number) // 4, 255 - make_frames(15, video=number + 50) // 4
        write_frames(tmp_path / f"{number}.mp4", *((dark, light) if number % 2 else (dark, dark)))
    clips = open_clips(tmp_path, 5, cache=tmp_path)
    settings = TargetSettings(16, 29, 1, 1, 1, ())
    said: list[str] = []
    for _ in range(2):
        open_targets(load_teacher("wan-tiny"), clips, settings, announce=said.append, cache=tmp_path)
    assert [line for line in said if "scene" in line] == 2 * ["3 of 6 crops have a scene cut in them"]
