"""Lists of videos in place of a folder: three kinds, parts of videos, and one line for each way to be wrong."""

import json
from pathlib import Path

import pytest

from nas.data.clips import read_frames
from nas.data.settings import SPLITS
from nas.data.splits import ClipSet, open_clips
from nas.study.contents import contents_of_clips
from tests.support.errors import refusal
from tests.support.videos import read_numbers, write_video


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Four videos of two seconds."""
    for video in range(4):
        write_video(tmp_path / "videos" / f"{video}.mkv", 48, 16, 16, video)
    return tmp_path / "videos"


def parts(clips: ClipSet) -> set[tuple[str, int, int]]:
    return {(clip.path.name, clip.first_frame, clip.num_frames) for split in SPLITS for clip in clips.split(split)}


def test_a_list_of_paths(videos: Path, tmp_path: Path) -> None:
    """Relative to the list, or not; what is wrong with a file is no fault of the list."""
    listing = tmp_path / "some.txt"
    listing.write_text(f"\ufeffvideos/0.mkv\n\n  {videos / '2.mkv'}\nvideos/3.mkv\nvideos/nowhere.mkv\n")
    clips = open_clips(listing, 5)
    assert parts(clips) == {("0.mkv", 0, 48), ("2.mkv", 0, 48), ("3.mkv", 0, 48)}
    assert clips.skipped == (("nowhere.mkv", "cannot be read (there is no such file or folder (any more))"),)
    assert clips.describe() == f"{listing}: 1 to train on, 1 to score on, 1 to test on, 1 skipped"
    assert set(contents_of_clips(clips)["clip"]) == {"videos/0.mkv", "videos/2.mkv", "videos/3.mkv"}


def test_a_list_splits_as_the_folder_does(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("".join(f"videos/{video}.mkv\n" for video in (3, 1, 0, 2)))
    listed, folder = open_clips(tmp_path / "all.txt", 5), open_clips(videos, 5)
    assert all(set(listed.split(split)) == set(folder.split(split)) for split in SPLITS)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_parts_are_in_seconds(kind: str, videos: Path, tmp_path: Path) -> None:
    rows = [
        {"path": "videos/0.mkv", "caption": "a, b", "start": "0.5", "length": "1"},
        {"path": "videos/1.mkv", "caption": "", "start": "1.5", "length": ""},
        {"path": "videos/2.mkv", "caption": "c", "start": "", "length": "0.25"},
        {"path": "videos/3.mkv", "caption": "d", "start": "1.9", "length": "1"},
        {"path": "videos/0.mkv", "caption": "e", "start": "0", "length": "0.5"},
        {"path": "videos/0.mkv", "caption": "again", "start": "0.5", "length": "1"},
    ]
    listing = tmp_path / f"parts.{kind}"
    if kind == "csv":
        lines = ["path,caption,start,length", *('{path},"{caption}",{start},{length}'.format(**row) for row in rows)]
    else:
        lines = [json.dumps({name: float(v) if v[:1].isdigit() else v for name, v in row.items() if v}) for row in rows]
    listing.write_text("\n".join(lines))
    clips = open_clips(listing, 5)
    assert parts(clips) == {("0.mkv", 12, 24), ("0.mkv", 0, 12), ("1.mkv", 36, 12), ("2.mkv", 0, 6)}
    assert clips.skipped == (
        ("3.mkv", "is too short: 2 frames, 5 are needed"),
        ("0.mkv", "is a copy of 0.mkv"),
    )
    homes = [split for split in SPLITS for clip in clips.split(split) if clip.path.name == "0.mkv"]
    assert len(homes) == 2 and len(set(homes)) == 1, "parts of one video stay together"
    (part,) = (clip for split in SPLITS for clip in clips.split(split) if clip.first_frame == 36)
    assert [read_numbers(frame) for frame in read_frames(part, 0, 12)] == [(1, index) for index in range(36, 48)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "lists no video"),
        ("a.csv", "path,start\n", "lists no video"),
        ("a.csv", "", "has no column 'path'"),
        ("a.csv", "file,start\nb.mp4,1\n", "has no column 'path': expected a first line such as path,start,length"),
        ("a.csv", "path,start\n,1\n", "line 2 has no 'path'"),
        ("a.csv", "path,start\nb.mp4,soon\n", "line 2 has the start 'soon': expected seconds, 0 or more"),
        ("a.csv", "path,start\nb.mp4,-1\n", "line 2 has the start '-1'"),
        ("a.csv", "path,start\nb.mp4,nan\n", "line 2 has the start 'nan'"),
        ("a.csv", "path,length\nc.mp4,2\nb.mp4,0\n", "line 3 has the length 0"),
        ("a.csv", 'path\n"b.mp4' + "x" * 140_000, "is not CSV"),
        ("a.jsonl", '{"path": "b.mp4"}\n{"path": \n', "line 2 is not JSON"),
        ("a.jsonl", '["b.mp4"]\n', "line 1 is no object"),
        ("a.jsonl", '{"path": 3}\n', "line 1 has no 'path'"),
        ("a.jsonl", '{"path": "b.mp4", "start": true}\n', "line 1 has the start True"),
        ("a.jsonl", '{"path": "b.mp4", "length": 1e999}\n', "line 1 has the length inf"),
        ("a.json", "[]", "is a file, but no list"),
        ("a.txt", "b.mp4\n", "no readable video in"),
    ],
)
def test_a_list_that_is_none_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = refusal(lambda: open_clips(tmp_path / name, 5))
    assert message in found and str(tmp_path / name) in found and "\n" not in found


def test_a_list_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("path\ngr\u00fc\u00dfe.mp4".encode("latin-1"))
    assert "is not a list in UTF-8" in refusal(lambda: open_clips(tmp_path / "a.csv", 5))


def test_parts_of_too_few_videos_are_refused(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,start\nvideos/0.mkv,0\nvideos/0.mkv,0.5\nvideos/1.mkv,0\n")
    assert "lists parts of fewer than 3 videos" in refusal(lambda: open_clips(tmp_path / "a.csv", 5))
