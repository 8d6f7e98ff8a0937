"""Clips from real videos: what is found, what is skipped and why, how it is split, which frames are read."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from nas.data.clips import Clip, read_frames, read_runs, to_video
from nas.data.pictures import NoPictureError
from nas.data.settings import SPLITS, Split
from nas.data.splits import ClipSet, open_clips
from nas.data.video_file import first_display
from tests.support.errors import refusal
from tests.support.videos import CODECS, make_frames, read_numbers, write_frames, write_video

ASSETS = Path(__file__).parents[2] / "nas" / "assets" / "clips"


def numbers_of(clips: tuple[Clip, ...]) -> list[tuple[int, int]]:
    """Video and frame of every frame of these clips, read off the pixels."""
    return [read_numbers(frame) for clip in clips for frame in read_frames(clip, 0, clip.num_frames)]


def check_disjoint(clips: ClipSet) -> set[tuple[int, int]]:
    """All frames of all splits; no frame is in two of them or twice in one."""
    found = [number for split in SPLITS for number in numbers_of(clips.split(split))]
    assert len(found) == len(set(found))
    return set(found)


def write_audio(path: Path) -> None:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cut_off(path: Path, part: float) -> None:
    """Leave only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


@pytest.mark.parametrize("suffix", [*CODECS, *(suffix.upper() for suffix in CODECS)])
def test_every_kind_of_file_gives_its_frames(suffix: str, tmp_path: Path) -> None:
    """Also in a folder of a folder, and beside files of other kinds."""
    path = tmp_path / "holiday" / "beach" / f"waves{suffix}"
    written = write_video(path, 30, video=77)
    (tmp_path / "holiday" / "notes.txt").write_text("waves.mp4")
    clips = open_clips(tmp_path, 9)
    assert [clip.path for clip in clips.train] == [path]
    assert check_disjoint(clips) == {(77, index) for index in range(30)}
    frames = read_frames(clips.test[0], 2, 5)
    assert frames.dtype == np.uint8 and frames.shape == (5, 32, 48, 3)
    assert [read_numbers(frame)[1] for frame in frames] == [23, 24, 25, 26, 27]
    if suffix.lower() == ".mkv":
        assert np.array_equal(frames, written[23:28])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(bytes(range(256)) * 40), "cannot be read"),
        (lambda path: path.write_text("this is no video"), "cannot be read"),
        (lambda path: cut_off(path, 0.5), "cannot be read"),
        (write_audio, "has no video stream"),
        (lambda path: write_video(path, 4), "is too short: 4 frames, 5 are needed"),
    ],
    ids=["empty", "noise", "text", "half", "sound only", "short"],
)
def test_a_bad_video_among_good_ones_is_skipped_and_counted(
    damage: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    for number in range(4):
        write_video(tmp_path / f"clip{number}.mp4", 5, video=number)
    damage(tmp_path / "clip1.mp4")
    seen: list[tuple[int, int]] = []
    clips = open_clips(tmp_path, 5, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [name for name, _ in clips.skipped] == ["clip1.mp4"]
    assert clips.skipped[0][1].startswith(reason)
    assert clips.describe() == f"{tmp_path}: 1 to train on, 1 to score on, 1 to test on, 1 skipped"
    assert {video for video, _ in check_disjoint(clips)} == {0, 2, 3}


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    message = refusal(lambda: open_clips(tmp_path / "nowhere", 5))
    assert message == f"--clips {tmp_path / 'nowhere'} does not exist: expected a folder of videos or a list of them"
    write_video(tmp_path / "one.mp4", 5)
    assert "one.mp4 is a file, but no list: expected" in refusal(lambda: open_clips(tmp_path / "one.mp4", 5))


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    message = refusal(lambda: open_clips(tmp_path, 5))
    assert f"no video in {tmp_path}" in message
    assert all(suffix in message for suffix in CODECS)


def test_a_folder_with_nothing_readable_is_refused_and_names_the_files(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"broken{number}.mp4").write_bytes(b"x" * 500)
    message = refusal(lambda: open_clips(tmp_path, 5))
    assert "no readable video" in message and "--clips" in message
    assert "broken0.mp4, broken1.mp4, broken2.mp4, broken3.mp4, broken4.mp4 and 2 more" in message


def test_only_short_videos_are_refused_and_named(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"short{number}.mkv", 4)
    (tmp_path / "broken.mp4").write_bytes(b"x" * 500)
    message = refusal(lambda: open_clips(tmp_path, 5))
    assert "only videos shorter than 5 frames" in message and "(short0.mkv, short1.mkv, short2.mkv)" in message


def test_named_folders_are_the_splits(tmp_path: Path) -> None:
    places = ("train/a.mkv", "train/day/b.mkv", "score/c.mkv", "test/d.mkv", "extra/e.mkv", "f.mkv")
    for video, place in enumerate(places):
        write_video(tmp_path / place, 5, video=video)
    clips = open_clips(tmp_path, 5)
    found = {split: {video for video, _ in numbers_of(clips.split(split))} for split in SPLITS}
    assert found == {"train": {0, 1}, "score": {2}, "test": {3}}
    assert clips.skipped == tuple(
        (name, "lies outside the subfolders train, score, test") for name in ("e.mkv", "f.mkv")
    )


def test_named_folders_that_are_not_complete_are_refused(tmp_path: Path) -> None:
    for video, split in enumerate(("train", "test")):
        write_video(tmp_path / split / "a.mkv", 5, video=video)
    assert "subfolders train and test but no score" in refusal(lambda: open_clips(tmp_path, 5))
    (tmp_path / "score").mkdir()
    (tmp_path / "score" / "b.mkv").write_bytes(b"x")
    assert f"no usable video in {tmp_path / 'score'}" in refusal(lambda: open_clips(tmp_path, 5))


@pytest.mark.parametrize("count", [3, 4, 5, 11])
def test_every_split_gets_videos_and_none_is_left_out(count: int, tmp_path: Path) -> None:
    for video in range(count):
        write_video(tmp_path / f"{video:02d}.mkv", 5, 16, 16, video)
    clips = open_clips(tmp_path, 5)
    assert all(clips.split(split) for split in SPLITS)
    assert check_disjoint(clips) == {(video, index) for video in range(count) for index in range(5)}
    assert clips == open_clips(tmp_path, 5)


@pytest.mark.parametrize("count", [1, 2])
def test_few_videos_are_cut_in_time(count: int, tmp_path: Path) -> None:
    for video in range(count):
        write_video(tmp_path / f"{video}.mp4", 17, video=video)
    clips = open_clips(tmp_path, 5)
    assert [clip.num_frames for clip in clips.train] == [7] * count
    assert [clip.num_frames for clip in clips.score] == [clip.num_frames for clip in clips.test] == [5] * count
    assert clips.score[0].name == "0.mp4[7:12]" and clips.train[0].name == "0.mp4"
    assert check_disjoint(clips) == {(video, index) for video in range(count) for index in range(17)}
    message = refusal(lambda: open_clips(tmp_path, 6))
    assert "0.mp4 with 17 frames is too short to be cut" in message and "at least 3 videos or 18 frames" in message


@pytest.mark.parametrize("size", [(32, 48), (1600, 800)], ids=["small", "reduced"])
@pytest.mark.parametrize("angle", [90, -90, 180])
def test_a_video_that_lies_on_its_side_is_set_upright(angle: int, size: tuple[int, int], tmp_path: Path) -> None:
    """Phones store what players should turn; the numbers can only be read off frames that stand upright."""
    upright = make_frames(2, *size, video=165)
    stored = np.rot90(upright, -angle // 90, axes=(1, 2))
    write_frames(tmp_path / "phone.mp4", stored, rotation=angle)
    frames = read_frames(Clip(tmp_path / "phone.mp4", 0, 2), 0, 2)
    assert frames.shape == ((2, 32, 48, 3) if size == (32, 48) else (2, 1440, 720, 3))
    assert [read_numbers(frame) for frame in frames] == [(165, 0), (165, 1)]


@pytest.mark.parametrize(
    ("size", "expected"), [((722, 1084), (720, 1081)), ((1600, 900), (1280, 720)), ((720, 960), (720, 960))]
)
def test_large_videos_are_reduced(size: tuple[int, int], expected: tuple[int, int], tmp_path: Path) -> None:
    write_video(tmp_path / "large.mp4", 2, *size, video=90)
    frames = read_frames(Clip(tmp_path / "large.mp4", 0, 2), 1, 1)
    assert frames.shape == (1, *expected, 3)
    assert read_numbers(frames[0]) == (90, 1)


def test_all_of_a_long_video_is_used(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mkv", 250, 16, 16)
    assert check_disjoint(open_clips(tmp_path, 40)) == {(0, index) for index in range(250)}


def test_a_video_that_breaks_off_is_used_up_to_there(tmp_path: Path) -> None:
    written = write_video(tmp_path / "broken.mkv", 60)
    cut_off(tmp_path / "broken.mkv", 0.6)
    clips = open_clips(tmp_path, 9)
    (rest,) = clips.test
    assert not clips.skipped and 27 <= rest.first_frame + rest.num_frames < 60
    assert np.array_equal(read_frames(rest, 0, 9), written[rest.first_frame : rest.first_frame + 9])


def test_frames_after_a_change_of_size_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    write_frames(path, make_frames(16), make_frames(8, 64, 64, 1), codec="mjpeg")
    shown = first_display(path)
    ((_, frames),) = read_runs(Clip(path, 0, 24), [11], 5, shown)
    assert [read_numbers(frame) for frame in frames] == [(0, index) for index in range(11, 16)]
    for first in (12, 17):
        with pytest.raises(NoPictureError, match="goes on in another size"):
            list(read_runs(Clip(path, 0, 24), [first], 5, shown))


def test_a_video_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_video(path, 12)
    clip = Clip(path, 4, 8)
    assert read_frames(clip, 0, 8).shape[0] == 8
    message = refusal(lambda: read_frames(clip, 0, 9))
    assert f"{path} ends before it has 9 frames from frame 4 on: has it changed?" in message
    write_video(path, 3)
    assert "ends before" in refusal(lambda: read_frames(clip, 0, 8))
    path.write_bytes(b"x" * 500)
    assert f"{path} cannot be read" in refusal(lambda: read_frames(clip, 0, 8))
    path.unlink()
    assert f"{path} cannot be read" in refusal(lambda: read_frames(clip, 0, 8))


def test_digest_is_of_content_and_range(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", 12)
    clip = Clip(tmp_path / "a.mkv", 0, 12)
    before = clip.digest()
    shutil.copy(clip.path, tmp_path / "elsewhere.mkv")
    assert Clip(tmp_path / "elsewhere.mkv", 0, 12).digest() == before
    assert replace(clip, first_frame=1).digest() != before
    assert replace(clip, num_frames=11).digest() != before
    write_video(tmp_path / "a.mkv", 12, video=1)
    assert clip.digest() != before


def test_video_values_and_enlargement() -> None:
    frames = make_frames(3, 16, 24)
    video = to_video(frames, 16)
    assert video.shape == (1, 3, 3, 16, 24) and video.dtype == torch.float32
    assert torch.equal(video[0, :, 2, 5, 7], torch.from_numpy(frames[2, 5, 7]).float() / 127.5 - 1)
    large = to_video(frames, 40)
    assert large.shape == (1, 3, 3, 40, 60)
    assert float(large.min()) >= -1 and float(large.max()) <= 1
    assert abs(float(large.mean() - video.mean())) < 0.01


def test_embedded_clips_are_small_licensed_and_long_enough() -> None:
    files = sorted(path for path in ASSETS.rglob("*") if path.is_file() and path.suffix in CODECS)
    assert len(files) >= 6
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    rows = [line for line in (ASSETS / "ATTRIBUTION.md").read_text().splitlines() if line.startswith("|")]
    for path in files:
        name = f"`{path.relative_to(ASSETS).with_suffix('')}`"
        row = [row for row in rows if name in row]
        assert len(row) == 1 and "https://creativecommons.org/" in row[0].split("|")[-2], name
    clips = open_clips(None, 33)
    assert not clips.skipped and clips.describe().startswith("embedded: ")
    splits: tuple[Split, ...] = ("train", "score", "test")
    for split in splits:
        assert clips.split(split)
        assert all(clip.path.parent.name == split for clip in clips.split(split))
    assert sum(len(clips.split(split)) for split in splits) == len(files)
    assert len({clip.digest() for split in splits for clip in clips.split(split)}) == len(files)
    assert all(min(read_frames(clip, 0, 1).shape[1:3]) >= 256 for clip in clips.test)
