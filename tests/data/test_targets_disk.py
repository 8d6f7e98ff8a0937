"""Files, shards and targets where the disk or the user fails: refusals, damage, and a real `kill -9`."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from nas.data.make_targets import open_targets
from nas.data.settings import Split, TargetSettings
from nas.data.shards import is_whole, read_shard, write_shard
from nas.data.splits import ClipSet, open_clips
from nas.machine.files import default_cache_dir, disk_errors, write_bytes
from nas.teachers import Teacher, load_teacher
from tests.support.errors import refusal
from tests.support.small_memory import of_a_gpu
from tests.support.small_targets import folder_of, shards_of
from tests.support.videos import write_video

SETTINGS = TargetSettings(crop=16, num_frames=5, train_crops=2, score_crops=1, test_crops=1, taps=())
NUM_VIDEOS = 6
"""4 to train on, 1 to score on, 1 to test on."""
NUM_CROPS = 10
CROP_BYTES = 4 * 16 * 8 + (2 + 1) * 3 * 5 * 256


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, split in enumerate([*["train"] * (NUM_VIDEOS - 2), "score", "test"]):
        write_video(folder / split / f"{number}.mkv", 6, 16, 24, number)
    return folder


@pytest.fixture(scope="module")
def clips(videos: Path) -> ClipSet:
    return open_clips(videos, 5)


@pytest.fixture
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.EPERM, "permission is denied"),
    ],
)
def test_errors_of_the_disk_say_what_where_and_why(number: int, reason: str) -> None:
    def fail() -> None:
        with disk_errors("cannot write the result"):
            raise OSError(number, os.strerror(number), "some/file")

    message = refusal(fail)
    assert message == f"cannot write the result: {reason} (some/file): free space or choose another folder"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    def write() -> None:
        with disk_errors("cannot write"):
            write_bytes(tmp_path / "file" / "folder" / "a.json", b"{}")

    assert "a part of the path is a file, not a folder" in refusal(write)
    assert (tmp_path / "file").read_text() == "x"


WRITER = """
import itertools, sys
from pathlib import Path
from nas.machine.files import write_bytes
for number in itertools.count():
    write_bytes(Path(sys.argv[1]), bytes([number % 256]) * 2_000_000)
    print(number, flush=True)
"""


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for writes in (1, 2, 3, 5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(writes):
                process.stdout.readline()
            process.kill()
        data = path.read_bytes()
        assert len(data) == 2_000_000 and data == data[:1] * 2_000_000
        assert data[0] >= writes - 1


def test_the_cache_is_where_the_variable_says(
    clips: ClipSet, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "turbo-vaed-nas"
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
    only_test = TargetSettings(16, 1, train_crops=0, score_crops=0, test_crops=1, taps=())
    targets = open_targets(teacher, clips, only_test)
    assert folder_of(targets) == tmp_path / "mine" / "targets" / targets.key
    assert len(targets.split("test")) == 1 and len(targets.split("train")) == len(targets.split("score")) == 0


@pytest.mark.parametrize(
    ("crop", "frames", "message"),
    [(20, 5, "height must be a multiple of 8, got 20: the nearest are 16 and 24"), (16, 4, "the nearest valid counts")],
)
def test_crops_off_the_grid_are_refused(
    crop: int, frames: int, message: str, clips: ClipSet, teacher: Teacher, tmp_path: Path
) -> None:
    settings = TargetSettings(crop, frames, 1, 1, 1, ())
    found = refusal(lambda: open_targets(teacher, clips, settings, cache=tmp_path))
    assert found.startswith("targets do not fit wan-tiny: ") and message in found
    assert not list(tmp_path.iterdir())


def test_a_set_that_fits_to_the_byte_is_kept_whole(clips: ClipSet, teacher: Teacher, tmp_path: Path) -> None:
    """Latents 16x2x2x2 in float32, frames 3x5x16x16 in half precision and as much truth in bytes."""
    targets = open_targets(teacher, clips, SETTINGS, cache=tmp_path, max_bytes=NUM_CROPS * CROP_BYTES)
    shards = [read_shard(path) for split in targets.splits for path in shards_of(targets, split).shards]
    assert sum(tensor.nbytes for shard in shards for tensor in shard.values()) == NUM_CROPS * CROP_BYTES
    assert targets.key == open_targets(teacher, clips, SETTINGS, announce=pytest.fail, cache=tmp_path).key


def test_of_a_set_that_is_too_large_the_first_crops_are_kept(clips: ClipSet, teacher: Teacher, tmp_path: Path) -> None:
    """A byte is missing, so one crop of each clip goes; what stays is what the whole set would hold of it."""
    said: list[str] = []
    options: dict[str, Any] = {"cache": tmp_path, "max_bytes": NUM_CROPS * CROP_BYTES - 1}
    small = open_targets(teacher, clips, SETTINGS, announce=said.append, **options)
    choice = "1 of 2 crops of each clip to train on, 1 of 1 to score on, 1 of 1 to test on: 0 MB of at most 0 MB"
    assert said == [choice, f"computing 1 MB once, kept in {folder_of(small)}"]
    assert [len(small.split(split)) for split in small.splits] == [4, 1, 1]
    again = open_targets(teacher, clips, SETTINGS, announce=said.append, **options)
    assert again.key == small.key and said[2:] == [choice], "what is trained on is said, computed or not"
    whole = open_targets(teacher, clips, SETTINGS, cache=tmp_path)
    assert whole.key != small.key
    kept: dict[Split, range] = {"train": range(0, 8, 2), "score": range(1), "test": range(1)}
    for split, indices in kept.items():
        ours, theirs = small.split(split).batch(range(len(indices))), whole.split(split).batch(indices)
        assert torch.equal(ours.truth, theirs.truth) and torch.equal(ours.latents, theirs.latents)


def test_where_one_crop_of_each_is_too_much_clips_are_chosen(clips: ClipSet, teacher: Teacher, tmp_path: Path) -> None:
    said: list[str] = []
    few = open_targets(teacher, clips, SETTINGS, announce=said.append, cache=tmp_path, max_bytes=4 * CROP_BYTES)
    assert said[0].startswith("1 crop each of 2 of 4 clips to train on, 1 of 1 to score on, 1 of 1 to test on: ")
    assert [len(few.split(split)) for split in few.splits] == [2, 1, 1]
    assert set(few.split("train").clip_names) < {clip.name for clip in clips.train}


def test_crops_too_large_for_one_in_each_split_are_refused(clips: ClipSet, teacher: Teacher, tmp_path: Path) -> None:
    open_limit = 3 * CROP_BYTES
    message = refusal(lambda: open_targets(teacher, clips, SETTINGS, cache=tmp_path, max_bytes=open_limit - 1))
    assert message.startswith("one crop for each of 3 splits would take ") and "smaller or shorter crops" in message
    assert not list(tmp_path.iterdir()) and "model" not in vars(teacher)
    targets = open_targets(teacher, clips, SETTINGS, cache=tmp_path, max_bytes=open_limit)
    assert [len(targets.split(split)) for split in targets.splits] == [1, 1, 1]


def test_too_little_room_is_refused_before_anything_is_computed(
    clips: ClipSet, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    message = refusal(lambda: open_targets(teacher, clips, SETTINGS, announce=pytest.fail, cache=tmp_path))
    assert f"in {tmp_path / 'targets'}, but only 0.0 GB are free" in message and "set NAS_CACHE" in message
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"] and "model" not in vars(teacher)


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "is read-only")])
def test_a_disk_that_fails_on_the_way_keeps_what_is_done(
    number: int, reason: str, clips: ClipSet, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def sync(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 3:
            raise OSError(number, os.strerror(number))

    def write(*shard: Any, **notes: Any) -> None:
        patch.setattr("os.fsync", sync)
        write_shard(*shard, **notes)

    with monkeypatch.context() as patch:
        patch.setattr("nas.data.make_targets.most_teachers", lambda *_: 1)
        patch.setattr("nas.data.make_targets.write_shard", write)
        message = refusal(lambda: open_targets(teacher, clips, SETTINGS, cache=tmp_path))
    assert message.startswith(f"cannot write the targets to {tmp_path}") and reason in message
    files = [path for path in (tmp_path / "targets").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["train-000.safetensors", "train-001.safetensors"]
    progress: list[tuple[int, int]] = []
    open_targets(teacher, clips, SETTINGS, lambda *seen: progress.append(seen), cache=tmp_path)
    assert progress[-1] == (NUM_CROPS - 4, NUM_CROPS - 4)


def test_a_cache_that_is_a_file_is_refused(clips: ClipSet, teacher: Teacher, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("x")
    message = refusal(lambda: open_targets(teacher, clips, SETTINGS, cache=tmp_path / "cache"))
    assert f"cannot write {tmp_path / 'cache'}" in message or "cannot write the targets" in message
    assert "is a file" in message or "is there already" in message


KILLED = """
import os, sys, time
from pathlib import Path
from nas.data.splits import open_clips
from nas.data import make_targets
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.teachers import load_teacher

def write(*shard, write=make_targets.write_shard, **notes):
    os.fsync = sync
    write(*shard, **notes)

def sync(handle, synced=[], fsync=os.fsync):
    fsync(handle)
    synced.append(handle)
    if len(synced) == 3:
        print("in the middle of a file", flush=True)
        time.sleep(600)

make_targets.write_shard = write
make_targets.most_teachers = lambda *_: 1  # else others finish files meanwhile
open_targets(load_teacher("wan-tiny"), open_clips(Path(sys.argv[1]), 5), SETTINGS, cache=Path(sys.argv[2]))
"""


def test_a_kill_leaves_whole_shards_and_the_rest_is_computed(
    videos: Path, clips: ClipSet, teacher: Teacher, tmp_path: Path
) -> None:
    """`kill -9` at the worst moment: all of a shard is written, but it does not have its name yet."""
    code = KILLED.replace("SETTINGS", repr(SETTINGS))
    command = [sys.executable, "-c", code, str(videos), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in the middle of a file\n"
        process.kill()
    (folder,) = (tmp_path / "targets").iterdir()
    done = sorted(folder.glob("*.safetensors"))
    assert [path.name for path in done] == ["train-000.safetensors", "train-001.safetensors"]
    assert all(is_whole(path, check_data=True) for path in done) and not (folder / "index.json").exists()
    before = [path.stat().st_mtime_ns for path in done]
    progress: list[tuple[int, int]] = []
    targets = open_targets(teacher, clips, SETTINGS, lambda *seen: progress.append(seen), cache=tmp_path)
    assert folder_of(targets) == folder and (folder / "index.json").exists()
    assert progress[-1] == (NUM_CROPS - 4, NUM_CROPS - 4)
    assert [path.stat().st_mtime_ns for path in done] == before
    killed = read_shard(done[1])
    done[1].unlink()
    open_targets(teacher, clips, SETTINGS, cache=tmp_path)
    for name, tensor in read_shard(done[1]).items():
        assert torch.allclose(tensor.float(), killed[name].float(), atol=1e-2), name


def test_a_lost_index_is_written_again(clips: ClipSet, teacher: Teacher, tmp_path: Path) -> None:
    options: dict[str, Any] = {"settings": TargetSettings(16, 1, 1, 1, 1, ()), "cache": tmp_path}
    index = folder_of(open_targets(teacher, clips, **options)) / "index.json"
    content = index.read_bytes()
    for spoil in (index.unlink, lambda: index.write_bytes(content[:50])):
        spoil()
        open_targets(teacher, clips, announce=pytest.fail, **options)
        assert index.read_bytes() == content


def test_a_teacher_that_runs_out_of_memory_is_told_in_one_line_and_the_rest_goes_on(
    clips: ClipSet, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second clip: what was computed of the first is kept. A crop is decoded in two pieces, a clip has two."""
    monkeypatch.setattr("nas.data.make_targets.most_teachers", lambda *_: 1)
    calls: list[int] = []

    def run_out(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls.append(len(args[0]))
        if len(calls) > 5:
            of_a_gpu()

    hook = teacher.model.get_submodule("decoder.conv_in").register_forward_pre_hook(run_out)
    message = refusal(lambda: open_targets(teacher, clips, SETTINGS, cache=tmp_path))
    assert message.startswith("cpu is out of memory with one clip of 16x16 and 5 frames and wan-tiny: ")
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["train-000.safetensors"]
    hook.remove()
    progress: list[tuple[int, int]] = []
    open_targets(teacher, clips, SETTINGS, lambda *seen: progress.append(seen), cache=tmp_path)
    assert progress[-1] == (NUM_CROPS - 2, NUM_CROPS - 2)
