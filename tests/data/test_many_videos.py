"""Folders of any size: headers first, each file looked into once, and a bounded set of targets."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from nas.data import headers, known_videos
from nas.data.clips import Clip
from nas.data.known_videos import KnownVideos
from nas.data.make_targets import open_targets
from nas.data.settings import SPLITS, TargetSettings
from nas.data.splits import open_clips
from nas.teachers import load_teacher
from tests.support.errors import refusal
from tests.support.videos import write_many, write_video

SMALL = TargetSettings(crop=16, num_frames=5, train_crops=2, score_crops=1, test_crops=1, taps=())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file whose header is read from now on."""
    found: list[Path] = []
    real = headers.read_header

    def watched(path: Path) -> Any:
        found.append(path)
        return real(path)

    monkeypatch.setattr(known_videos, "read_header", watched)
    return found


def test_a_file_is_looked_into_once(opened: list[Path], tmp_path: Path) -> None:
    write_many(tmp_path / "videos", 60)
    clips = open_clips(tmp_path / "videos", 17, cache=tmp_path)
    assert len(opened) == 60 and not clips.skipped
    assert sum(len(clips.split(split)) for split in SPLITS) == 60
    opened.clear()
    assert open_clips(tmp_path / "videos", 17, cache=tmp_path) == clips
    assert opened == []
    changed = tmp_path / "videos" / "00007.mp4"
    os.utime(changed, (time.time() - 10, time.time() - 10))
    assert open_clips(tmp_path / "videos", 17, cache=tmp_path) == clips
    assert opened == [changed], "another time may be another content"
    changed.write_bytes(changed.read_bytes() + (8).to_bytes(4, "big") + b"free")
    again = open_clips(tmp_path / "videos", 17, cache=tmp_path)
    assert opened == [changed, changed]
    contents = [{clip.content for split in SPLITS for clip in each.split(split)} for each in (clips, again)]
    assert len(contents[0] ^ contents[1]) == 2


def test_what_was_written_just_now_is_looked_into_again(opened: list[Path], tmp_path: Path) -> None:
    """It could be written again without another time."""
    for video in range(3):
        write_video(tmp_path / "videos" / f"{video}.mkv", 20, 16, 16, video)
    for _ in range(2):
        open_clips(tmp_path / "videos", 17, cache=tmp_path)
    assert len(opened) == 6 and not (tmp_path / "videos.json").exists()


@pytest.mark.parametrize(
    "damage",
    [b"", b"[1]", b"{", b'{"a": 3}', b'{"a": {"size": 1, "header": {}}}', b'{"a": {"digests": 1}}', b"[" * 99_999],
)
def test_a_damaged_memory_is_as_good_as_none(damage: bytes, opened: list[Path], tmp_path: Path) -> None:
    write_many(tmp_path / "videos", 3)
    clips = open_clips(tmp_path / "videos", 17, cache=tmp_path)
    name = str(tmp_path / "videos" / "00000.mp4").encode()
    (tmp_path / "videos.json").write_bytes(damage.replace(b'"a"', b'"' + name + b'"'))
    assert open_clips(tmp_path / "videos", 17, cache=tmp_path) == clips
    assert len(opened) == 6
    assert len(json.loads((tmp_path / "videos.json").read_bytes())) == 3


def test_the_memory_is_bounded_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        write_many(tmp_path / folder, 4)
    one, other = KnownVideos(tmp_path), KnownVideos(tmp_path)
    one.headers(sorted((tmp_path / "a").iterdir()))
    other.headers(sorted((tmp_path / "b").iterdir()))
    assert len(json.loads((tmp_path / "videos.json").read_bytes())) == 8
    monkeypatch.setattr(known_videos, "_MOST", 5)
    write_many(tmp_path / "c", 2)
    KnownVideos(tmp_path).headers(sorted((tmp_path / "c").iterdir()))
    kept = list(json.loads((tmp_path / "videos.json").read_bytes()))
    assert [Path(name).parent.name for name in kept] == ["b", "b", "b", "c", "c"]


def test_a_memory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    write_many(tmp_path / "videos", 3)
    (tmp_path / "cache").write_text("")
    message = refusal(lambda: open_clips(tmp_path / "videos", 17, cache=tmp_path / "cache"))
    assert message.startswith(f"cannot write {tmp_path / 'cache' / 'videos.json'}: ")


def test_contents_are_hashed_once_and_only_of_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_many(tmp_path / "videos", 60)
    hashed: list[Clip] = []
    real = Clip.digest

    def digest(clip: Clip) -> str:
        hashed.append(clip)
        return real(clip)

    monkeypatch.setattr(Clip, "digest", digest)
    teacher = load_teacher("wan-tiny")
    clips = open_clips(tmp_path / "videos", 17, cache=tmp_path)
    assert hashed == []
    said: list[str] = []
    targets = open_targets(teacher, clips, SMALL, None, said.append, tmp_path, max_crops=3)
    counts = f"1 of {len(clips.train)} clips to train on, 1 of {len(clips.score)} to score on, 1 of {len(clips.test)}"
    assert said[0] == f"1 crop each of {counts} to test on: at most 3 crops"
    assert len(hashed) == 3 == sum(len(targets.split(split)) for split in SPLITS)
    again = open_targets(teacher, clips, SMALL, None, said.append, tmp_path, max_crops=3)
    assert again.key == targets.key and len(hashed) == 3


def test_large_files_are_known_by_pieces_of_them(tmp_path: Path) -> None:
    """Whole files up to a size, of larger ones pieces all over; their length counts in any case."""
    data = os.urandom(headers._PIECES * headers._PIECE_BYTES + 1000)

    def content(data: bytes) -> str:
        (tmp_path / "a.mp4").write_bytes(data)
        return headers.read_header(tmp_path / "a.mp4").content

    found = content(data)
    assert content(data) == found != content(data + b"\0")
    for place in (0, len(data) // 3, 2 * len(data) // 3, len(data) - 1):
        assert content(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) != found
    assert content(data[:-2000]) != content(data[:-2001] + b"\0")


@pytest.mark.slow
def test_2000_videos_are_opened_in_seconds(tmp_path: Path) -> None:
    write_many(tmp_path / "videos", 2000)
    seconds = []
    for _ in range(2):
        start = time.process_time()
        clips = open_clips(tmp_path / "videos", 17, cache=tmp_path)
        seconds.append(time.process_time() - start)
    assert sum(len(clips.split(split)) for split in SPLITS) == 2000 and not clips.skipped
    assert (tmp_path / "videos.json").stat().st_size < 2e6
    # Of processor time: a wall clock knows what else the machine does.
    assert seconds[0] < 10 and seconds[1] < 2, seconds
