"""Clips, weights, run folders and disks that a search cannot work with: one clear line, nothing half-written."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nas.machine.files import read_json, write_json
from tests.support.commands import Finished, Inputs, Shell, refuse, write_teacher
from tests.support.videos import CODECS, write_video

# Clips


def write_junk(path: Path) -> None:
    path.write_bytes(b"no video at all " * 99)


def put_file(folder: Path) -> None:
    folder.rmdir()
    write_junk(folder)


CLIPS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "missing": (lambda folder: folder.rmdir(), ["does not exist", "expected a folder"]),
    "empty": (lambda folder: None, ["no video", ".mp4", ".mov", ".mkv", ".avi", ".webm"]),
    "only other files": (lambda folder: (folder / "notes.txt").write_text("x"), ["no video", ".mp4"]),
    "a file": (put_file, ["is a file", "expected a folder"]),
    "no readable video": (lambda folder: write_junk(folder / "broken.mp4"), ["no readable video", "broken.mp4"]),
    "too short": (
        lambda folder: write_video(folder / "blink.mp4", 7),
        ["blink.mp4", "shorter than", "frames", "--clips"],
    ),
    "too short to share out": (
        lambda folder: write_video(folder / "one.mp4", 20),
        ["one.mp4", "20 frames", "at least 3 videos"],
    ),
}


@pytest.mark.parametrize("row", CLIPS)
def test_clips_that_are_none(shell: Shell, inputs: Inputs, row: str) -> None:
    prepare, expected = CLIPS[row]
    folder = shell.folder / "mine"
    folder.mkdir()
    prepare(folder)
    refuse(shell, "nas.search", inputs.arguments("--clips", "mine"), "mine", *expected)


def test_missing_clips_in_a_real_process(shell: Shell) -> None:
    arguments = ["--teacher", "wan-tiny", "--latency-budget", "30ms", "--clips", "nowhere"]
    refuse(shell, "nas.search", arguments, "nowhere", "does not exist", real=True)


def test_bad_videos_among_good_ones_of_every_kind_are_skipped_and_counted(shell: Shell, inputs: Inputs) -> None:
    folder = shell.folder / "mine"
    for number, (split, suffix) in enumerate(zip(["train", "score", "test", "test", "test"], CODECS, strict=True)):
        write_video(folder / split / f"{number}{suffix}", 24, 48, 64, video=number)
    write_junk(folder / "train" / "broken.mkv")
    write_video(folder / "test" / "blink.avi", 5)
    done = shell.fork("nas.search", *inputs.arguments("--clips", "mine", "--trials", "1", "--steps", "1", "--run", "R"))
    assert (done.status, done.stderr) == (0, "")
    assert "mine: 1 to train on, 1 to score on, 3 to test on, 2 skipped\n" in done.stdout
    short, broken = (line for line in done.stdout.splitlines() if line.startswith("warning"))
    assert "blink.avi" in short and "5 frames" in short
    assert "broken.mkv" in broken and "cannot be read" in broken
    assert read_json(shell.folder / "R" / "config.json")["settings"]["clips"] == str(folder)


# Weights


def write_other_class(folder: Path) -> None:
    write_teacher(folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"_class_name": "AutoencoderKLLTXVideo"})


def write_other_shapes(folder: Path) -> None:
    write_teacher(folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"base_dim": 8})


def write_cut_off(folder: Path) -> None:
    write_teacher(folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


WEIGHTS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "missing": (lambda folder: None, ["does not exist"]),
    "empty folder": (lambda folder: folder.mkdir(), ["config.json", "diffusion_pytorch_model.safetensors"]),
    "of another class": (write_other_class, ["AutoencoderKLLTXVideo", "AutoencoderKLWan"]),
    "of other shapes": (
        write_other_shapes,
        ["does not fit AutoencoderKLWan", "first decoder.", "found (", "expected (", "config.json"],
    ),
    "cut off": (write_cut_off, ["not a complete safetensors file"]),
    "a text": (lambda folder: folder.write_text("x"), ["weights"]),
}


@pytest.mark.parametrize("row", WEIGHTS)
def test_weights_that_do_not_fit(shell: Shell, inputs: Inputs, row: str) -> None:
    prepare, expected = WEIGHTS[row]
    prepare(shell.folder / "weights")
    refuse(shell, "nas.search", inputs.arguments("--teacher-weights", "weights"), "weights", *expected)


def test_no_network_and_nothing_cached(shell: Shell) -> None:
    arguments = ["--teacher", "wan", "--latency-budget", "30ms"]
    refuse(shell, "nas.search", arguments, "cached", "--teacher-weights", "wan-tiny", real=True)


# Run folders

OTHER_SEARCHES = {
    "teacher": ["--teacher", "wan"],
    "weights": ["--teacher-weights", "TEACHER"],
    "space": ["--space", "hybrid"],
    "budget": ["--latency-budget", "0.3ms"],
    "device": ["--device", "host"],
    "resolution": ["--resolution", "64x72"],
    "frames": ["--frames", "9"],
    "steps": ["--steps", "3"],
    "seed": ["--seed", "1"],
}


@pytest.mark.parametrize("row", OTHER_SEARCHES)
def test_run_folder_of_another_search(shell: Shell, inputs: Inputs, kept_run: Path, row: str) -> None:
    option, value = OTHER_SEARCHES[row]
    if value == "TEACHER":
        value = str(shell.folder / "teacher")
        shutil.copytree(inputs.teacher, value)
    shutil.copytree(kept_run, shell.folder / "R")
    arguments = inputs.arguments("--run", "R", option, value)
    done = refuse(shell, "nas.search", arguments, "R was made with", option, "another --run")
    assert value in done.error.replace(" ", ""), done.error


def put_photo(folder: Path) -> None:
    folder.mkdir()
    (folder / "photo.jpg").write_text("x")


def put_broken_config(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"format": 1, "sett')


def put_config_of_something_else(folder: Path) -> None:
    folder.mkdir()
    write_json(folder / "config.json", {"_class_name": "AutoencoderKLWan", "z_dim": 16})


FOLDERS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "of photos": (put_photo, ["not a run folder"]),
    "a file": (lambda path: path.write_text("x"), ["not a run folder"]),
    "broken": (put_broken_config, ["config.json", "not valid JSON"]),
    "a model": (put_config_of_something_else, ["config.json"]),
}


@pytest.mark.parametrize("row", FOLDERS)
@pytest.mark.parametrize("module", ["nas.search", "nas.finalize"])
def test_folder_that_is_no_run(shell: Shell, inputs: Inputs, module: str, row: str) -> None:
    prepare, expected = FOLDERS[row]
    prepare(shell.folder / "R")
    arguments = inputs.arguments("--run", "R") if module == "nas.search" else ["R"]
    refuse(shell, module, arguments, "R", *expected)


# The disk


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A small disk of its own in a folder; skips the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here without special rights")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refuse_for_the_disk(done: Finished, *expected: str) -> None:
    assert done.status == 2, f"{done.status}\n{done.stdout}\n{done.stderr}"
    missing = [text for text in expected if text not in done.error]
    assert not missing, f"{missing} not in {done.error}"


@pytest.mark.parametrize("place", ["/dev/null/R", "/proc/R", "/sys/R"])
def test_run_folder_where_none_can_be_made(shell: Shell, inputs: Inputs, place: str) -> None:
    """No mode of a folder stops the administrator, who may run these tests; these places do."""
    if not Path(place).parent.exists():
        pytest.skip(f"there is no {Path(place).parent} here")
    refuse(shell, "nas.search", inputs.arguments("--run", place), place, "another")


def test_cache_where_none_can_be_made(shell: Shell, inputs: Inputs, tmp_path: Path) -> None:
    elsewhere = Shell(tmp_path, Path(os.devnull) / "cache")
    done = elsewhere.fork("nas.search", *inputs.arguments("--run", "R"))
    refuse_for_the_disk(done, "cannot write", "/dev/null/cache", "another folder")


def test_read_only_disk(shell: Shell, inputs: Inputs) -> None:
    disk = shell.folder / "disk"
    with mounted(disk, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refuse(Shell(disk, inputs.cache), "nas.search", inputs.arguments(), "read-only", "runs")


@pytest.mark.parametrize("size", ["4k", "100k", "200k"])
def test_full_disk(shell: Shell, inputs: Inputs, size: str) -> None:
    """It fills up at the run's settings, at the study's tables, at the first trials; with room the search goes on."""
    disk = shell.folder / "disk"
    arguments = inputs.arguments("--run", "R", "--trials", "1", "--steps", "1")
    with mounted(disk, size):
        on_disk = Shell(disk, inputs.cache)
        if size == "4k":
            (disk / "filler").write_bytes(bytes(4096))
        refuse_for_the_disk(on_disk.fork("nas.search", *arguments), "full", "R")
        if size == "200k":
            subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
            done = on_disk.fork("nas.search", *arguments)
            assert (done.status, done.stderr) == (0, "")


def test_full_disk_for_targets(shell: Shell, inputs: Inputs) -> None:
    """That they do not fit is seen before anything is computed."""
    disk = shell.folder / "disk"
    with mounted(disk, "500k"):
        done = Shell(shell.folder, disk).fork("nas.search", *inputs.arguments("--run", "R"))
        refuse_for_the_disk(done, "targets", str(disk), "NAS_CACHE")
        assert not list(disk.rglob("*.safetensors"))
