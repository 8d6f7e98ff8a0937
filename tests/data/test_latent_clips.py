"""Latents of the user's among the samples to train on: crops of them, decoded by the teacher, with no video."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nas.data.latent_clips import LatentClip, open_latents
from nas.data.live_samples import LiveSamples, open_training_targets
from nas.data.make_targets import open_targets
from nas.data.one_crop import bytes_per_crop
from nas.data.settings import TargetSettings
from nas.data.splits import ClipSet, open_clips
from nas.data.targets import Samples, Targets
from nas.teachers import Teacher, load_teacher
from nas.terminal.errors import UserError
from tests.support.errors import refusal
from tests.support.small_targets import folder_of
from tests.support.videos import write_video

SETTINGS = TargetSettings(16, 9, train_crops=3, score_crops=1, test_crops=1, taps=("mid_block",))
"""Crops of 3x2x2 latents."""
CROP = (3, 2, 2)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


@pytest.fixture(scope="module")
def latents(teacher: Teacher) -> Tensor:
    """Of two clips, 4x3x4."""
    noise = torch.randn(2, 16, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (teacher.spec.mean, teacher.spec.std))
    return noise * std + mean


@pytest.fixture(scope="module")
def folder(latents: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    save_file({"latents": latents}, folder / "two.safetensors")
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    folder = tmp_path_factory.mktemp("videos")
    for number, place in enumerate(("train/a.mkv", "score/b.mkv", "test/c.mkv")):
        write_video(folder / place, 12, 36, 44, number)
    return open_clips(folder, 9, cache=folder)


@pytest.fixture(scope="module")
def both(clips: ClipSet, folder: Path, teacher: Teacher) -> ClipSet:
    return replace(clips, latents=open_latents(folder, teacher.spec))


@pytest.fixture(scope="module")
def targets(teacher: Teacher, both: ClipSet, tmp_path_factory: pytest.TempPathFactory) -> Targets:
    return open_targets(teacher, both, SETTINGS, cache=tmp_path_factory.mktemp("targets"))


def check_crop(samples: Samples, index: int, whole: Tensor, teacher: Teacher) -> tuple[int, ...]:
    """The sample is a crop of these latents `(c, t, h, w)` and what the teacher makes of it; where it begins."""
    batch = samples.batch([index])
    places = [
        at
        for at in ((t, y, x) for t in range(2) for y in range(2) for x in range(3))
        if torch.equal(
            whole[:, *(slice(first, first + side) for first, side in zip(at, CROP, strict=True))], batch.latents[0]
        )
    ]
    frames, features = teacher.decode_with_features(batch.latents, ("mid_block",))
    assert torch.equal(batch.frames, frames.half().float()) and batch.video is None
    assert torch.equal(batch.features["mid_block"], features["mid_block"].half().float())
    (place,) = places
    return place


def test_they_are_trained_on_and_nothing_else(targets: Targets, latents: Tensor, teacher: Teacher) -> None:
    train = targets.split("train")
    assert train.clip_names == ("a.mkv",) * 3 + ("two.safetensors[0]",) * 3 + ("two.safetensors[1]",) * 3
    assert targets.split("score").clip_names == ("b.mkv",) and targets.split("test").clip_names == ("c.mkv",)
    places = [check_crop(train, index, latents[(index - 3) // 3], teacher) for index in range(3, 9)]
    assert len({*places}) > 2, "crops are from all over them"


def test_of_a_batch_with_such_a_sample_there_is_no_truth(targets: Targets) -> None:
    train = targets.split("train")
    assert train.batch([0, 1]).truth.shape == train.batch([0, 1]).frames.shape
    mixed = train.batch([0, 4])
    assert mixed.frames.shape == (2, 3, 9, 16, 16) and mixed.part(0, 1).video is None
    with pytest.raises(UserError, match="latents of your own have no video"):
        _ = mixed.truth


def test_clips_keep_their_shards(teacher: Teacher, clips: ClipSet, targets: Targets, tmp_path: Path) -> None:
    """What is made of videos does not depend on latents; the key of all does."""
    alone = open_targets(teacher, clips, SETTINGS, cache=tmp_path)
    assert alone.key != targets.key
    for ours, theirs in (("train-000", "train-000"), ("score-001", "score-003"), ("test-002", "test-004")):
        one, other = folder_of(alone) / f"{ours}.safetensors", folder_of(targets) / f"{theirs}.safetensors"
        assert one.read_bytes() == other.read_bytes()


def test_the_key_is_of_their_values_not_of_the_file(
    teacher: Teacher, both: ClipSet, targets: Targets, latents: Tensor, tmp_path: Path
) -> None:
    torch.save(latents, tmp_path / "same.pt")
    (tmp_path / "other").mkdir()
    torch.save(latents + 1e-3, tmp_path / "other" / "other.pt")
    moved, other = (open_latents(path, teacher.spec) for path in (tmp_path / "same.pt", tmp_path / "other"))
    cache = folder_of(targets).parents[1]
    again = open_targets(teacher, replace(both, latents=moved), SETTINGS, announce=pytest.fail, cache=cache)
    assert again.key == targets.key
    assert [clip.content for clip in other] != [clip.content for clip in moved]
    assert len({clip.content for clip in (*other, *moved)}) == 4


def test_a_shard_that_is_lost_is_made_again(teacher: Teacher, both: ClipSet, targets: Targets) -> None:
    shard = folder_of(targets) / "train-002.safetensors"
    before = shard.read_bytes()
    shard.unlink()
    open_targets(teacher, both, SETTINGS, cache=folder_of(targets).parents[1])
    assert shard.read_bytes() == before


def test_the_teacher_makes_them_as_training_goes(
    teacher: Teacher, both: ClipSet, latents: Tensor, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, train_crops=20)
    size = 6 * (bytes_per_crop(teacher, settings) + 1000)
    first, again = (
        open_training_targets(teacher, both, settings, cache=tmp_path / name, max_bytes=size) for name in "ab"
    )
    train = first.split("train")
    assert isinstance(train, LiveSamples) and len(train) == 60 and first.key == again.key
    check_crop(train, 47, latents[1], teacher)
    assert torch.equal(train.batch([47]).frames, again.split("train").batch([47]).frames)
    other = open_training_targets(
        teacher, replace(both, latents=both.latents[:1]), settings, cache=tmp_path / "a", max_bytes=size
    )
    assert other.key != first.key


def test_latents_that_change_meanwhile_are_refused(teacher: Teacher, latents: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(latents, path)
    first = open_latents(path, teacher.spec)
    torch.save(latents + 1, path)
    second = open_latents(path, teacher.spec)
    assert torch.equal(second[1].read(), latents[1:] + 1)
    assert "a.pt has changed meanwhile" in refusal(first[0].read)


def test_those_that_a_crop_does_not_fit_into_are_left_out(both: ClipSet) -> None:
    clip = both.latents[0]
    assert clip.size == (4, 3, 4) and isinstance(clip, LatentClip)
    fits = {(13, 24): True, (13, 32): False, (17, 16): False, (1, 8): True}
    assert {size: clip.holds(*size) for size in fits} == fits
    assert both.at_least(9, 24).latents == both.latents and both.at_least(9, 32).latents == ()
    assert both.at_least(9, 32).train == both.train, "videos are enlarged"
