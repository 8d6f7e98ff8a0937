"""Targets of the embedded teacher on small real videos: what they hold and when they are computed."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.data.clips import read_frames, to_video
from nas.data.make_targets import open_targets
from nas.data.settings import SPLITS, Split, TargetSettings
from nas.data.shards import read_shard
from nas.data.splits import ClipSet, open_clips
from nas.data.targets import Targets
from nas.teachers import Teacher, load_teacher
from tests.support.small_targets import folder_of, shards_of
from tests.support.videos import write_video

TAPS = ("mid_block", "up_blocks.0")
SETTINGS = TargetSettings(crop=32, num_frames=5, train_crops=2, score_crops=2, test_crops=1, taps=TAPS)
LENGTHS = {"train/a.mkv": 12, "train/b.mkv": 9, "score/c.mkv": 8, "test/d.mkv": 5}
SHARDS = ["score-002.safetensors", "test-003.safetensors", "train-000.safetensors", "train-001.safetensors"]


@dataclass(frozen=True)
class World:
    """A folder of videos and the targets made of it, which no test changes."""

    videos: Path
    cache: Path
    clips: ClipSet
    teacher: Teacher
    targets: Targets
    progress: list[tuple[int, int]]
    announced: list[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("targets")
    for number, (place, length) in enumerate(LENGTHS.items()):
        write_video(root / "videos" / place, length, 36, 44, number)
    clips = open_clips(root / "videos", 5)
    teacher = load_teacher("wan-tiny")
    progress: list[tuple[int, int]] = []
    announced: list[str] = []
    targets = open_targets(
        teacher, clips, SETTINGS, lambda *seen: progress.append(seen), announced.append, cache=root / "cache"
    )
    return World(root / "videos", root / "cache", clips, teacher, targets, progress, announced)


@pytest.fixture
def cache(world: World, tmp_path: Path) -> Path:
    """A copy of the computed targets, to be spoilt."""
    return Path(shutil.copytree(world.cache, tmp_path / "cache"))


class WouldComputeError(Exception):
    """Raised at the announcement of a computation; carries the line."""


def key_of(world: World, cache: Path, **changes: Any) -> str:
    """The key of the targets, found without computing any; `changes` replace the teacher, the clips or settings."""

    def stop(line: str) -> None:
        raise WouldComputeError(line)

    teacher, clips = changes.pop("teacher", world.teacher), changes.pop("clips", world.clips)
    with pytest.raises(WouldComputeError) as caught:
        open_targets(teacher, clips, replace(SETTINGS, **changes), announce=stop, cache=cache)
    return str(caught.value).split("/")[-1]


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def shard_of(targets: Targets, split: Split, number: int = 0) -> dict[str, Tensor]:
    return read_shard(shards_of(targets, split).shards[number])


def test_what_is_announced_and_written(world: World) -> None:
    folder = folder_of(world.targets)
    assert folder == world.cache / "targets" / world.targets.key
    (line,) = world.announced
    assert re.fullmatch(rf"computing \d+ MB once, kept in {re.escape(str(folder))}", line)
    assert world.progress == [(done, 7) for done in range(1, 8)]
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", *SHARDS]
    index = json.loads((folder / "index.json").read_text())
    assert index["teacher_sha256"] == world.teacher.weights_hash
    assert {name: entry["crops"] for name, entry in index["shards"].items()} == dict(
        zip(SHARDS, (2, 1, 2, 2), strict=True)
    )
    assert world.targets.spec == world.teacher.spec
    assert world.targets.taps == {name: world.teacher.taps[name] for name in TAPS}
    assert world.targets.split("train").clip_names == ("a.mkv", "a.mkv", "b.mkv", "b.mkv")


def test_batches_are_float32_of_the_teachers_shapes_and_ranges(world: World) -> None:
    split = world.targets.split("train")
    assert len(split) == 4 and len(world.targets.split("score")) == 2 and len(world.targets.split("test")) == 1
    batch = split.batch([3, 0, 2])
    assert batch.latents.shape == (3, 16, 2, 4, 4)
    assert batch.frames.shape == batch.truth.shape == (3, 3, 5, 32, 32)
    assert {name: tuple(each.shape) for name, each in batch.features.items()} == {
        "mid_block": (3, 64, 2, 4, 4),
        "up_blocks.0": (3, 32, 3, 8, 8),
    }
    tensors = [batch.latents, batch.frames, batch.truth, *batch.features.values()]
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in tensors)
    for tensor in (batch.frames, batch.truth):
        assert float(tensor.abs().max()) <= 1 and float(tensor.min()) < -0.5 and float(tensor.max()) > 0.5
    alone = split.batch([0])
    assert torch.equal(batch.latents[1:2], alone.latents) and torch.equal(batch.truth[1:2], alone.truth)
    shard = shard_of(world.targets, "train")
    assert torch.equal(alone.latents, shard["latents"][:1]) and torch.equal(alone.frames, shard["frames"][:1].float())
    assert torch.equal(alone.truth, shard["truth"][:1].float() / 127.5 - 1)
    assert not torch.equal(batch.latents[0], batch.latents[1])


def check_row(world: World, shard: dict[str, Tensor], row: int, video: Tensor) -> None:
    """The targets in this row are those of this crop."""
    latents = world.teacher.encode(video)
    frames, features = world.teacher.decode_with_features(latents, TAPS)
    assert torch.equal(shard["latents"][row], latents[0]) and shard["latents"].dtype == torch.float32
    assert torch.equal(shard["frames"][row], frames[0].half())
    for name in TAPS:
        assert torch.equal(shard[f"feature.{name}"][row], features[name][0].half())
    assert torch.equal(shard["truth"][row].float() / 127.5 - 1, video[0])


@pytest.mark.parametrize("split", ["score", "test"])
def test_the_first_crop_to_score_or_test_on_is_central(split: Split, world: World) -> None:
    frames = read_frames(world.clips.split(split)[0], 0, 5)
    check_row(world, shard_of(world.targets, split), 0, to_video(frames)[..., 2:34, 6:38])


def test_crops_to_train_on_are_from_all_over_the_clip(world: World) -> None:
    places = []
    for number, clip in enumerate(world.clips.train):
        shard = shard_of(world.targets, "train", number)
        whole = to_video(read_frames(clip, 0, clip.num_frames))
        values = ((whole + 1) * 127.5).round().byte()[0]
        for row in range(2):
            found = [
                (first, y, x)
                for first in range(clip.num_frames - 4)
                for y in range(5)
                for x in range(13)
                if torch.equal(values[:, first : first + 5, y : y + 32, x : x + 32], shard["truth"][row])
            ]
            assert len(found) == 1, "a crop of this clip, without any change"
            first, y, x = found[0]
            check_row(world, shard, row, whole[:, :, first : first + 5, y : y + 32, x : x + 32])
            places.append(found[0])
    assert len(set(places)) == 4


def test_the_second_time_nothing_is_computed(world: World, cache: Path) -> None:
    before = stamps(cache / "targets" / world.targets.key)
    teacher = load_teacher("wan-tiny")
    again = open_targets(teacher, world.clips, SETTINGS, announce=lambda line: pytest.fail(line), cache=cache)
    assert "model" not in vars(teacher)
    assert again.key == world.targets.key and stamps(folder_of(again)) == before
    assert torch.equal(again.split("score").batch([1]).latents, world.targets.split("score").batch([1]).latents)


def test_sets_that_do_not_fit_into_memory_are_read_row_by_row(
    world: World, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.data.make_targets._IN_MEMORY", 0)
    large = open_targets(world.teacher, world.clips, SETTINGS, announce=lambda line: pytest.fail(line), cache=cache)
    for split in SPLITS:
        assert shards_of(large, split).loaded is None
        indices = list(range(len(large.split(split))))[::-1]
        ours, theirs = large.split(split).batch(indices), world.targets.split(split).batch(indices)
        assert torch.equal(ours.latents, theirs.latents) and torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.truth, theirs.truth)
        assert all(torch.equal(ours.features[name], theirs.features[name]) for name in TAPS)


def test_the_key_is_of_content_not_of_place(world: World, tmp_path: Path) -> None:
    moved = shutil.copytree(world.videos, tmp_path / "elsewhere")
    (moved / "train" / "a.mkv").rename(moved / "train" / "aa.mkv")
    assert key_of(world, tmp_path, clips=open_clips(moved, 5)) == world.targets.key
    write_video(moved / "train" / "aa.mkv", 12, 36, 44, 9)
    assert key_of(world, tmp_path, clips=open_clips(moved, 5)) != world.targets.key


def test_the_key_is_of_everything_that_the_targets_depend_on(world: World, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"crop": 24},
        {"num_frames": 1},
        {"train_crops": 3},
        {"score_crops": 1},
        {"test_crops": 0},
        {"taps": TAPS[:1]},
        {"seed": 1},
        {"frames": False},
        {"clips": replace(world.clips, train=world.clips.train[:1])},
        {"clips": replace(world.clips, score=world.clips.test, test=world.clips.score)},
        {"clips": replace(world.clips, test=(replace(world.clips.score[0], num_frames=5),))},
    ]
    folder = Path(shutil.copytree(Path(__file__).parents[2] / "nas" / "assets" / "wan_tiny", tmp_path / "weights"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"latents_mean": [0.0] * 16}))
    changes.append({"teacher": load_teacher("wan-tiny", folder)})
    half = load_teacher("wan-tiny")
    half.dtype = torch.bfloat16
    changes.append({"teacher": half})
    keys = [key_of(world, tmp_path, **change) for change in changes]
    assert len({world.targets.key, *keys}) == len(changes) + 1


def test_another_seed_is_other_crops_to_train_on_and_the_same_first_ones_to_score_on(
    world: World, tmp_path: Path
) -> None:
    small = replace(world.clips, train=world.clips.train[:1], test=())
    settings = replace(SETTINGS, seed=1, taps=())
    other = open_targets(world.teacher, small, settings, cache=tmp_path)
    assert torch.equal(shard_of(other, "score")["truth"][0], shard_of(world.targets, "score")["truth"][0])
    assert not torch.equal(shard_of(other, "train")["truth"], shard_of(world.targets, "train")["truth"])


def flip(path: Path, position: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: flip(path, 0.5),
        lambda path: flip(path, 0.9999),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(b""),
    ],
    ids=["missing", "flipped bit", "flipped last bit", "short by a byte", "half a header", "empty"],
)
def test_only_what_is_missing_or_damaged_is_computed(
    damage: Callable[[Path], object], world: World, cache: Path
) -> None:
    folder = cache / "targets" / world.targets.key
    before = stamps(folder)
    damage(folder / SHARDS[3])
    announced: list[str] = []
    progress: list[tuple[int, int]] = []
    again = open_targets(
        world.teacher, world.clips, SETTINGS, lambda *seen: progress.append(seen), announced.append, cache
    )
    after = stamps(folder)
    assert len(announced) == 1 and progress == [(1, 2), (2, 2)]
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    assert [name for name in SHARDS if after[name][0] == before[name][0]] == SHARDS[:3]
    assert again.key == world.targets.key
