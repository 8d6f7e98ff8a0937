"""Folders of videos as people have them: links, circles, odd names, and what may not be read."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from nas.data.clips import Clip, read_frames
from nas.data.find_videos import find_videos
from nas.data.headers import read_header
from nas.data.splits import open_clips
from nas.search import main
from tests.support.commands import Shell, make_inputs
from tests.support.errors import refusal
from tests.support.videos import read_numbers, write_video


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "clips", tmp_path / "elsewhere"
    write_video(folder / "own" / "a.mkv", 5)
    write_video(elsewhere / "deep" / "b.mkv", 5, video=1)
    (folder / "again").symlink_to(folder / "own")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)
    (elsewhere / "itself").symlink_to(elsewhere / "itself")
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.mov")
    files, left_out = find_videos(folder)
    assert files == [folder / "linked" / "deep" / "b.mkv", folder / "own" / "a.mkv"]
    assert dict(left_out) == {
        "gone.mp4": "is a link to nothing",
        "pipe.mov": "is no file",
        "again": f"is the folder {folder / 'own'} again",
        "linked/round": f"is the folder {folder} again",
    }


def test_splits_may_be_links(tmp_path: Path) -> None:
    for video, split in enumerate(("train", "score", "test")):
        write_video(tmp_path / "disk" / str(video) / "a.mkv", 5, video=video)
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / "clips" / split).symlink_to(tmp_path / "disk" / str(video))
    clips = open_clips(tmp_path / "clips", 5)
    assert [read_numbers(read_frames(c, 0, 1)[0])[0] for c in (*clips.train, *clips.score, *clips.test)] == [0, 1, 2]


NAMES = ["a:b.mkv", "file:x.mkv", "%03d.mkv", "-i.mkv", "a b\n.mkv", "caf\u00e9.mkv", os.fsdecode(b"caf\xe9\xff.mkv")]
"""A protocol, a pattern, an option, a line break, and bytes that are no text."""


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_file_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "plain.mkv", 6, video=44)
    (tmp_path / "plain.mkv").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert (read_header(Path(name)).frames, read_header(Path(name)).reason) == (6, "")
    frames = read_frames(Clip(Path(name), 0, 6), 0, 6)
    assert [read_numbers(frame) for frame in frames] == [(44, index) for index in range(6)]
    assert find_videos(Path()) == ([Path(name)], [])


@pytest.mark.slow
def test_names_that_the_terminal_cannot_print(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """They are in the skipped ones, in the folder's name and among those that are used."""
    inputs = make_inputs(tmp_path_factory)
    shell = Shell(tmp_path, inputs.cache)
    folder = shell.folder / os.fsdecode(b"clips\xff")
    for number in range(3):
        write_video(folder / "a.mkv", 20, 48, 64, video=number)
        (folder / "a.mkv").rename(folder / os.fsdecode(b"\xe9%d.mkv" % number))
    (folder / os.fsdecode(b"broken\xfe.mp4")).write_bytes(b"x" * 99)
    words = ["--clips", str(folder), "--trials", "1", "--steps", "1", "--run", "R"]
    done = shell.fork("nas.search", *inputs.arguments(*words))
    assert (done.status, done.stderr) == (0, "")
    assert "skipped broken\\udcfe.mp4: cannot be read" in done.stdout and "clips\\udcff: 1 to train on" in done.stdout


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("x" * 300, "a name in the path is too long"),
        ("a/" * 3000, "a name in the path is too long"),
        ("a\0b", "does not exist"),
    ],
)
def test_folders_that_cannot_be(folder: str, reason: str) -> None:
    assert reason in refusal(lambda: open_clips(Path(folder), 5))


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mkv", 20)
    (tmp_path / "closed").mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> Any:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert open_clips(tmp_path, 5).warnings() == ("skipped closed: cannot be read (permission is denied)",)


@pytest.mark.parametrize("option", ["--clips", "--teacher-weights"])
def test_links_that_lead_in_a_circle(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert main(["--latency-budget", "30ms", option, str(tmp_path / "a" / "c")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and str(tmp_path) in error
    assert "links lead in a circle" in error or "does not exist" in error
