"""Crops that the teacher makes as training goes: the same in every run, kept within a bound, whatever breaks."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.data.crop_cache import CropCache
from nas.data.crops import cut_crops
from nas.data.headers import read_header
from nas.data.live_samples import LiveSamples, open_training_targets
from nas.data.one_crop import bytes_per_crop, targets_of
from nas.data.plan import Part
from nas.data.settings import TargetSettings
from nas.data.splits import ClipSet, open_clips
from nas.data.targets import ShardSamples, TargetBatch, Targets
from nas.distillation.distill import Progress, distill
from nas.distillation.initialise import build
from nas.distillation.settings import DistillSettings
from nas.teachers import Teacher, load_teacher
from tests.support.errors import refusal
from tests.support.small_decoders import small_config
from tests.support.videos import damage_video, write_video

SETTINGS = TargetSettings(crop=16, num_frames=5, train_crops=20, score_crops=2, test_crops=0, taps=("mid_block",))
KEPT = 12
"""Crops that the cache has room for."""


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        write_video(folder / f"{number}.mp4", 30, video=number)
    return open_clips(folder, 5, cache=folder)


def open_live(teacher: Teacher, clips: ClipSet, cache: Path, kept: int = KEPT) -> tuple[Targets, LiveSamples]:
    """Targets whose cache has room for so many crops, and the samples of them to train on."""
    size = kept * (bytes_per_crop(teacher, SETTINGS) + 1000)  # each file has a header
    targets = open_training_targets(teacher, clips, SETTINGS, cache=cache, max_bytes=size)
    train = targets.split("train")
    assert isinstance(train, LiveSamples)
    return targets, train


def tensors(batch: TargetBatch) -> list[Tensor]:
    return [batch.latents, batch.truth, batch.frames, *batch.features.values()]


def equal(one: TargetBatch, other: TargetBatch) -> bool:
    return all(torch.equal(*pair) for pair in zip(tensors(one), tensors(other), strict=True))


def test_what_may_be_kept_is_made_before(teacher: Teacher, clips: ClipSet, tmp_path: Path) -> None:
    small = replace(SETTINGS, train_crops=1)
    targets = open_training_targets(teacher, clips, small, cache=tmp_path)
    assert isinstance(targets.split("train"), ShardSamples) and not (tmp_path / "crops").exists()
    few = open_training_targets(teacher, clips, SETTINGS, cache=tmp_path, max_crops=6)
    assert isinstance(few.split("train"), ShardSamples), "a bound on crops is a bound on what has to be kept"


def test_a_sample_is_what_the_teacher_makes_of_a_crop(teacher: Teacher, clips: ClipSet, tmp_path: Path) -> None:
    """The first time, when it is read again, and when it was lost in between."""
    _, train = open_live(teacher, clips, tmp_path)
    assert len(train) == 20 * len(clips.train) and train.clip_names[20] == clips.train[1].name
    clip = clips.train[1]
    (crop,) = cut_crops(Part("train", clip, 20), clip.identity, SETTINGS, [7])
    made = targets_of(teacher, crop, SETTINGS)
    for lost in (False, False, True):
        if lost:
            shutil.rmtree(tmp_path / "crops")
        batch = train.batch([27])
        assert torch.equal(batch.latents, made["latents"]) and torch.equal(batch.frames, made["frames"].float())
        assert torch.equal(batch.features["mid_block"], made["feature.mid_block"].float())


def test_the_cache_stays_within_its_bound(teacher: Teacher, clips: ClipSet, tmp_path: Path) -> None:
    """And keeps what is used: what has just been made is not made again."""
    _, train = open_live(teacher, clips, tmp_path)
    cache = CropCache(tmp_path / "crops", 0)
    bound = KEPT * (bytes_per_crop(teacher, SETTINGS) + 1000)
    for first in range(0, 28, 4):
        train.batch(range(first, first + 4))
        assert 0 < cache.held <= bound
    inodes = {path: path.stat().st_ino for path in cache.folder.iterdir()}
    train.batch(range(24, 28))
    assert {path: path.stat().st_ino for path in cache.folder.iterdir()} == inodes


def test_many_threads_make_what_one_makes(teacher: Teacher, clips: ClipSet, tmp_path: Path) -> None:
    _, one = open_live(teacher, clips, tmp_path / "one", kept=4)
    _, many = open_live(teacher, clips, tmp_path / "many", kept=4)
    steps = [one.order(step, 3, 0) for step in range(6)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(many.batch, steps))
    assert all(equal(one.batch(step), batch) for step, batch in zip(steps, found, strict=True))


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[int], ClipSet]:
    """Videos, the first of which break where they are cut, although their headers are whole."""

    def make(count: int) -> ClipSet:
        for number in range(6):
            write_video(tmp_path / "videos" / f"{number}.mp4", 30, video=number)
        whole = open_clips(tmp_path / "videos", 5, cache=tmp_path)
        for clip in whole.train[:count]:
            damage_video(clip.path)
        found = [replace(clip, content=read_header(clip.path).content) for clip in whole.train]
        return replace(whole, train=tuple(found))

    return make


def test_a_crop_that_breaks_is_passed_over_in_every_run_alike(
    teacher: Teacher, broken: Callable[[int], ClipSet], tmp_path: Path
) -> None:
    clips = broken(1)
    _, train = open_live(teacher, clips, tmp_path)
    batch = train.batch([3])
    assert equal(batch, train.batch([23])), "the same crop of the next clip"
    name = clips.train[0].name
    (said,) = train.notes()
    assert said.startswith(f"crops of 1 clips left out: {name} ")
    _, again = open_live(teacher, clips, tmp_path / "again")
    again.batch([23])
    assert again.notes() == [] and equal(batch, again.batch([3]))


def test_clips_that_all_break_or_change_are_refused(
    teacher: Teacher, broken: Callable[[int], ClipSet], tmp_path: Path
) -> None:
    clips = broken(6)
    _, train = open_live(teacher, clips, tmp_path)
    assert refusal(lambda: train.batch([0])).startswith("no clip is left to train on (")
    clips.train[0].path.unlink()
    assert "has changed meanwhile: restore it" in refusal(lambda: train.batch([0]))


def test_a_crop_that_the_cache_has_no_room_for_is_refused(teacher: Teacher, clips: ClipSet, tmp_path: Path) -> None:
    said = refusal(lambda: open_live(teacher, clips, tmp_path, kept=1))
    assert said.startswith("a crop takes 0 MB, too much for a cache of 0 MB: give a larger --cache-size")
    assert not list(tmp_path.iterdir())


def test_the_key_stands_for_what_is_trained_on(teacher: Teacher, clips: ClipSet, tmp_path: Path) -> None:
    keys = [
        open_live(teacher, clips, tmp_path)[0].key,
        open_live(teacher, clips, tmp_path, kept=2 * KEPT)[0].key,
        open_live(teacher, replace(clips, train=clips.train[1:]), tmp_path)[0].key,
    ]
    assert len(set(keys)) == 3 and open_live(teacher, clips, tmp_path / "other")[0].key == keys[0]


def test_a_distillation_that_is_cut_off_goes_on_with_the_same_samples(
    teacher: Teacher, clips: ClipSet, tmp_path: Path
) -> None:
    """Bit by bit, even if its crops are lost meanwhile."""
    settings = DistillSettings(steps=12, batch_size=2, checkpoint_every=4, report_every=6, precision="float32")
    config = small_config(teacher.spec)

    def run(cache: Path, until: int | None = None) -> dict[str, Tensor]:
        targets, _ = open_live(teacher, clips, cache)

        def report(progress: Progress) -> None:
            if progress.step == until:
                raise KeyboardInterrupt

        student = build(config, 0)
        distill(student, targets, settings, device="cpu", checkpoint=cache / "run.pt", report=report)
        return student.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", until=7)
    shutil.rmtree(tmp_path / "cut" / "crops")
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
