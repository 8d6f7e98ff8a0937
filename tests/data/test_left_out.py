"""Videos that break where they are cut: left out, counted and named; those that change meanwhile end the work."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.data.crops import cut_crops
from nas.data.make_targets import open_targets
from nas.data.settings import SPLITS, TargetSettings
from nas.data.splits import open_clips
from nas.teachers import Teacher, load_teacher
from tests.support.errors import refusal
from tests.support.small_targets import make_targets, shards_of
from tests.support.videos import damage_video, write_video

SETTINGS = TargetSettings(crop=16, num_frames=5, train_crops=2, score_crops=1, test_crops=1, taps=())


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


def test_a_video_that_breaks_is_left_out_counted_and_named(teacher: Teacher, tmp_path: Path) -> None:
    """Where it is cut, although its header and its end are whole; the others stay as they are without it."""
    for number in range(6):
        write_video(tmp_path / "videos" / f"{number}.mp4", 30, video=number)
    whole = open_clips(tmp_path / "videos", 5, cache=tmp_path)
    split_of = {clip.path: split for split in SPLITS for clip in whole.split(split)}
    broken = whole.train[0].path
    damage_video(broken)
    clips = open_clips(tmp_path / "videos", 5, cache=tmp_path)
    split = next(each for each in SPLITS for clip in clips.split(each) if clip.path == broken)
    said: list[str] = []
    settings = replace(SETTINGS, train_crops=3, score_crops=3, test_crops=3)
    targets = open_targets(teacher, clips, settings, None, said.append, tmp_path)
    assert said[-1].startswith(f"1 of 6 clips left out: {broken.name} ")
    assert sum(len(targets.split(each)) for each in SPLITS) == 5 * 3 and split_of[broken] == "train"
    assert broken.name not in targets.split(split).clip_names
    index = json.loads((tmp_path / "targets" / targets.key / "index.json").read_text())
    assert len(index["left_out"]) == 1 and len(index["shards"]) == 6
    again = open_targets(teacher, clips, settings, lambda *seen: pytest.fail(str(seen)), said.append, tmp_path)
    assert again.key == targets.key and said[-1] == said[-2], "it is not tried again, but said again"


def test_a_split_of_which_every_clip_breaks_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        write_video(tmp_path / split / "a.mp4", 30, video=number)
    damage_video(tmp_path / "score" / "a.mp4")
    clips = open_clips(tmp_path, 5, cache=tmp_path)
    message = refusal(lambda: open_targets(teacher, clips, replace(SETTINGS, score_crops=3), cache=tmp_path))
    assert message.startswith("no clip is left to score on (a.mp4 ") and "give other videos" in message


def test_a_video_that_changes_meanwhile_ends_the_work(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", 30, video=number)
    clips = open_clips(tmp_path / "videos", 5, cache=tmp_path)

    def cut(part: Any, *more: Any) -> Any:
        part.clip.path.write_bytes(b"x" * 500)
        return cut_crops(part, *more)

    monkeypatch.setattr("nas.data.make_targets.cut_crops", cut)
    message = refusal(lambda: open_targets(teacher, clips, SETTINGS, cache=tmp_path))
    assert message == f"{clips.train[0].path} has changed meanwhile: restore it, or start anew"


@pytest.mark.parametrize("in_memory", [True, False])
def test_targets_that_another_process_deletes_are_said_to_be_gone(in_memory: bool, tmp_path: Path) -> None:
    samples = shards_of(make_targets(3, 1, 1, folder=tmp_path), "train")
    samples = replace(samples, loaded={} if in_memory else None)
    before = samples.batch([0, 2])
    for path in samples.shards:
        path.unlink()
    if in_memory:
        assert torch.equal(samples.batch([0, 2]).truth, before.truth), "what was read is kept"
        samples = replace(samples, loaded={})
    message = refusal(lambda: samples.batch([0, 2]))
    assert message.startswith(f"{samples.shards[0]} cannot be read (No such file")
    assert message.endswith("the same command computes what is missing and goes on")
