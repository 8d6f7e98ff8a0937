"""What cannot be judged: one clear line, status 2, nothing written."""

import errno
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.evaluate import material, outcome
from nas.machine.files import write_json
from nas.model import TurboVAED
from nas.model.folder import load_model, write_model_folder
from tests.support.judged_models import Stage, make_stage, run_evaluate
from tests.support.records import make_record
from tests.support.small_decoders import SPECS, small_config
from tests.support.videos import write_video


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return make_stage(tmp_path_factory.mktemp("stage"))


def save_latents(path: Path, shape: tuple[int, ...], value: float = 0.0) -> Path:
    np.save(path, np.full(shape, value, np.float32))
    return path


def other_teacher(stage: Stage, folder: Path) -> list[object]:
    TurboVAED(small_config(SPECS["16ch-4x8x8-leading"]).to_dict(), "wan-tiny").save_pretrained(folder / "other")
    return [stage.first, folder / "other"]


def other_width(stage: Stage, folder: Path) -> list[object]:
    spec = replace(SPECS["16ch-4x8x8-leading"], channels=8)
    TurboVAED(small_config(spec).to_dict(), "wan").save_pretrained(folder / "other")
    return [folder / "other"]


def other_weights(stage: Stage, folder: Path) -> list[object]:
    model = load_model(stage.first)
    record = make_record(architecture=model.decoder.config.digest())
    write_model_folder(folder / "other", model, record)
    return [folder / "other"]


def not_finite(stage: Stage, folder: Path) -> list[object]:
    model = load_model(stage.first)
    with torch.no_grad():
        model.decoder.get_parameter("head.conv.bias").fill_(math.nan)
    model.save_pretrained(folder / "other")
    return [folder / "other", "--clips", stage.clips]


def short_clips(stage: Stage, folder: Path) -> list[object]:
    write_video(folder / "short" / "blink.mkv", 4)
    return [stage.first, "--clips", folder / "short"]


def short_for_protocol(stage: Stage, folder: Path) -> list[object]:
    return [stage.first, "--clips", stage.clips, "--protocol", "ucf101"]


def taken(stage: Stage, folder: Path) -> list[object]:
    (folder / "mine").mkdir()
    write_json(folder / "mine" / "evaluation.json", {"teacher": "mine"})
    return [stage.first, "--out", folder / "mine"]


def into_a_file(stage: Stage, folder: Path) -> list[object]:
    (folder / "file").write_text("mine")
    return [stage.first, "--out", folder / "file" / "deeper"]


Arguments = Callable[[Stage, Path], list[object]]

ROWS: dict[str, tuple[Arguments, list[str]]] = {
    "no model": (lambda stage, folder: [folder / "nothing"], ["is not a model folder", "finalize"]),
    "a model twice": (lambda stage, folder: [stage.first, stage.first], ["given twice"]),
    "of several teachers": (other_teacher, ["wan-tiny", "of wan", "one teacher"]),
    "for other latents": (other_width, ["8 channels", "16 channels"]),
    "of other weights": (other_weights, ["distilled from other weights", "--teacher-weights"]),
    "frames that are not finite": (not_finite, ["other cannot be judged on a.mkv", "nan"]),
    "no clips": (lambda stage, folder: [stage.first, "--clips", folder / "no"], ["does not exist", "folder of videos"]),
    "clips shorter than a chunk": (short_clips, ["shorter than 5 frames", "blink.mkv"]),
    "clips too short for a protocol": (short_for_protocol, ["shorter than 17 frames"]),
    "a decode shorter than a chunk": (lambda stage, folder: [stage.first, "--frames", 4], ["--frames 4", "at least 5"]),
    "no frame": (lambda stage, folder: [stage.first, "--frames", 0], ["--frames", "at least 1"]),
    "a crop off the grid": (
        lambda stage, folder: [stage.first, "--clips", stage.clips, "--crop", 30],
        ["--crop 30", "24 and 32"],
    ),
    "a protocol with another crop": (
        lambda stage, folder: [stage.first, "--protocol", "davis", "--crop", 32],
        ["--crop is fixed by --protocol davis"],
    ),
    "an unknown protocol": (lambda stage, folder: [stage.first, "--protocol", "ucf"], ["'ucf'", "ucf101", "davis"]),
    "noise in words": (lambda stage, folder: [stage.first, "--noise", "loud"], ["--noise", "'loud'"]),
    "noise that is none": (lambda stage, folder: [stage.first, "--noise", "nan"], ["--noise", "from 0 to 10"]),
    "latents of another width": (
        lambda stage, folder: [stage.first, "--latents", save_latents(folder / "z.npy", (1, 8, 2, 4, 4))],
        ["z.npy", "(1, 8, 2, 4, 4)", "(b, 16, t, h, w)"],
    ),
    "latents of another rank": (
        lambda stage, folder: [stage.first, "--latents", save_latents(folder / "z.npy", (16, 4, 4))],
        ["z.npy", "(16, 4, 4)", "(16, t, h, w)"],
    ),
    "latents that are not finite": (
        lambda stage, folder: [stage.first, "--latents", save_latents(folder / "z.npy", (16, 2, 4, 4), math.nan)],
        ["z.npy", "not finite"],
    ),
    "latents too small": (
        lambda stage, folder: [stage.first, "--latents", save_latents(folder / "z.npy", (16, 2, 1, 4))],
        ["z.npy", "1x4", "16x16"],
    ),
    "no latents": (lambda stage, folder: [stage.first, "--latents", folder / "no"], ["does not exist", ".npy"]),
    "latents and clips": (
        lambda stage, folder: [stage.first, "--latents", folder, "--clips", stage.clips],
        ["--clips is about clips"],
    ),
    "a scale without latents": (lambda stage, folder: [stage.first, "--normalised"], ["--latents"]),
    "a folder of something else": (taken, ["something else is there", "--out"]),
    "a folder in a file": (into_a_file, ["is a file, not a folder"]),
    "a model in the place of the result": (
        lambda stage, folder: [stage.first, "--out", stage.second],
        ["something else is there"],
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_one_line_and_nothing_written(row: str, stage: Stage, tmp_path: Path) -> None:
    make, expected = ROWS[row]
    arguments = make(stage, tmp_path)
    if "--out" not in arguments:
        arguments += ["--out", tmp_path / "out"]
    before = sorted(path for folder in (tmp_path, stage.first.parent) for path in folder.rglob("*"))
    status, _, err = run_evaluate(*arguments, "--teacher-weights", stage.weights)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert all(text in err for text in expected), err
    assert before == sorted(path for folder in (tmp_path, stage.first.parent) for path in folder.rglob("*"))


def test_a_model_whose_teacher_is_not_here(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    status, _, err = run_evaluate(stage.first, "--teacher-weights", tmp_path / "nowhere")
    assert status == 2 and "judged against its teacher, which is not here" in err and "nowhere" in err
    TurboVAED(small_config(SPECS["16ch-4x8x8-leading"]).to_dict(), "wna").save_pretrained(tmp_path / "other")
    status, _, err = run_evaluate(tmp_path / "other")
    assert status == 2 and "did you mean 'wan'" in err and err.count("\n") == 1


def test_whole_clips_too_large_for_memory(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where they are not streamed."""
    monkeypatch.setattr(material, "memory_limit", lambda device: 1000)
    arguments = ["--clips", stage.clips, "--teacher-weights", stage.weights, "--out", tmp_path / "out"]
    status, _, err = run_evaluate(stage.bidirectional, *arguments)
    assert status == 2 and "for 13 frames of 32x48" in err and "--crop" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert run_evaluate(stage.first, *arguments)[0] == 0


def test_a_disk_that_fills_up_leaves_what_was_there(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [stage.first, "--latents", save_latents(tmp_path / "z.npy", (16, 2, 4, 4))]
    arguments += ["--teacher-weights", stage.weights, "--out", tmp_path / "out"]
    assert run_evaluate(*arguments)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(path: Path, data: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(outcome, "write_bytes", full)
    status, _, err = run_evaluate(*arguments)
    assert status == 2 and "cannot write the evaluation" in err and "the disk is full" in err and err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_short_clips_among_long_ones_are_named(stage: Stage, tmp_path: Path) -> None:
    shutil.copytree(stage.clips, tmp_path / "clips")
    write_video(tmp_path / "clips" / "blink.mkv", 4)
    out = tmp_path / "out"
    arguments = ("--clips", tmp_path / "clips", "--teacher-weights", stage.weights, "--out", out, "--frames", 5)
    status, text, err = run_evaluate(stage.first, *arguments)
    assert (status, err) == (0, "") and "skipped blink.mkv: is too short: 4 frames, 5 are needed" in text
