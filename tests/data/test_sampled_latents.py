"""Latents to train on with the noise of the encoder: a sample of its distribution, the same whenever it is drawn."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.data.live_samples import LiveSamples, open_training_targets
from nas.data.make_targets import open_targets
from nas.data.one_crop import bytes_per_crop
from nas.data.settings import SPLITS, TargetSettings
from nas.data.shards import read_shard
from nas.data.splits import ClipSet, open_clips
from nas.data.targets import TargetBatch, Targets
from nas.teachers import Teacher, load_teacher
from tests.support.small_targets import folder_of
from tests.support.videos import write_video

PLAIN = TargetSettings(16, 5, train_crops=2, score_crops=1, test_crops=1, taps=("mid_block",))
SAMPLED = replace(PLAIN, sampled=True)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    folder = tmp_path_factory.mktemp("videos")
    for number, place in enumerate(("train/a.mkv", "train/b.mkv", "score/c.mkv", "test/d.mkv")):
        write_video(folder / place, 9, 36, 44, number)
    return open_clips(folder, 5, cache=folder)


@pytest.fixture(scope="module")
def plain(teacher: Teacher, clips: ClipSet, tmp_path_factory: pytest.TempPathFactory) -> Targets:
    return open_targets(teacher, clips, PLAIN, cache=tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sampled(teacher: Teacher, clips: ClipSet, tmp_path_factory: pytest.TempPathFactory) -> Targets:
    return open_targets(teacher, clips, SAMPLED, cache=tmp_path_factory.mktemp("sampled"))


def everything(targets: Targets, split: str) -> TargetBatch:
    samples = {str(name): targets.split(name) for name in SPLITS}[split]
    return samples.batch(range(len(samples)))


def contents(targets: Targets) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder_of(targets).iterdir()}


def noise_of(targets: Targets, plain: Targets) -> Tensor:
    return everything(targets, "train").latents - everything(plain, "train").latents


def test_latents_to_train_on_are_samples_and_their_targets_fit(
    teacher: Teacher, plain: Targets, sampled: Targets
) -> None:
    """Of the same crops: what the teacher makes of the sample, and as much noise as its encoder says."""
    ours, modes = everything(sampled, "train"), everything(plain, "train")
    assert torch.equal(ours.truth, modes.truth)
    for index in range(len(ours.latents)):
        frames, features = teacher.decode_with_features(ours.latents[index : index + 1], ("mid_block",))
        assert torch.equal(ours.frames[index], frames[0].half().float())
        assert torch.equal(ours.features["mid_block"][index], features["mid_block"][0].half().float())
    distribution = teacher.model.encode(ours.truth).latent_dist  # type: ignore[operator]
    relative = (ours.latents - distribution.mean) / distribution.std
    assert 0.9 < float(relative.std()) < 1.1 and abs(float(relative.mean())) < 0.1


def test_other_crops_are_the_mode(plain: Targets, sampled: Targets) -> None:
    theirs, ours = contents(plain), contents(sampled)
    assert theirs.keys() == ours.keys()
    assert {name for name in ours if ours[name] == theirs[name]} == {"score-002.safetensors", "test-003.safetensors"}


def test_every_crop_has_noise_of_its_own(
    teacher: Teacher, clips: ClipSet, plain: Targets, sampled: Targets, tmp_path: Path
) -> None:
    noise = noise_of(sampled, plain)
    assert len({tuple(each.flatten().tolist()) for each in noise}) == len(noise) == 4
    one = replace(clips, train=clips.train[:1], test=())
    more = open_targets(teacher, one, replace(SAMPLED, train_crops=3), cache=tmp_path)
    assert torch.equal(everything(more, "train").latents[:2], everything(sampled, "train").latents[:2])


def test_what_was_cut_off_goes_on_to_the_same_bytes(
    teacher: Teacher, clips: ClipSet, sampled: Targets, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(folder_of(sampled).parents[1], tmp_path / "cache"))
    (cache / "targets" / sampled.key / "train-001.safetensors").unlink()
    assert contents(open_targets(teacher, clips, SAMPLED, cache=cache)) == contents(sampled)


def test_a_teacher_that_runs_along_draws_the_same_noise_again(teacher: Teacher, clips: ClipSet, tmp_path: Path) -> None:
    """Where a crop was lost, in another process or another run; scores are those of the mode, made once."""
    size = 4 * (bytes_per_crop(teacher, PLAIN) + 1000)
    found = {}
    for name, settings in (("modes", PLAIN), ("samples", SAMPLED), ("again", SAMPLED)):
        if name == "again":
            shutil.rmtree(tmp_path / "crops")
        targets = open_training_targets(
            teacher, clips, replace(settings, train_crops=20), cache=tmp_path, max_bytes=size
        )
        train = targets.split("train")
        assert isinstance(train, LiveSamples)
        found[name] = train.batch([3, 25])
    assert torch.equal(found["samples"].latents, found["again"].latents)
    assert torch.equal(found["samples"].frames, found["again"].frames)
    assert torch.equal(found["samples"].truth, found["modes"].truth)
    assert not torch.equal(found["samples"].latents, found["modes"].latents)
    assert len(list((tmp_path / "targets").iterdir())) == 1


def test_without_samples_nothing_says_so() -> None:
    """Keys and files are those from before there were any."""
    fields = asdict(PLAIN)
    del fields["sampled"]
    assert PLAIN.identity() == fields
    assert SAMPLED.identity() == fields | {"sampled": True}


def test_shards_of_the_mode_hold_it(teacher: Teacher, plain: Targets) -> None:
    shard = read_shard(folder_of(plain) / "train-000.safetensors")
    video = shard["truth"][:1].float() / 127.5 - 1
    assert torch.allclose(shard["latents"][:1], teacher.encode(video), atol=1e-5)
