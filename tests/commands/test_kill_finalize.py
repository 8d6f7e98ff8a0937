"""Finalize, stopped in the middle by `kill -9` or Ctrl-C, and the same command again: no step is done twice."""

import contextlib
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from nas.machine.files import read_json
from tests.support.commands import Inputs, Shell, make_run
from tests.support.run_folders import list_files

WEIGHTS = "diffusion_pytorch_model.safetensors"

FRAMES = """
[[phases]]
name = "frames"
steps = 100
crops = { pixels = 32, latent_frames = 3, train = 2, score = 1 }
settings = { batch_size = 1 }
"""
"""A recipe of one phase that clips of a few frames serve."""


@pytest.mark.slow
def test_killed_after_the_distillation(shell: Shell, inputs: Inputs) -> None:
    """Of what was distilled nothing is done again, and the model appears complete or not at all."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    process = shell.start_fork("nas.finalize", "R", "--steps", "2")
    checkpoint = wait_for_step(shell, 2)
    os.kill(process.pid, signal.SIGKILL)
    assert process.finish().status == -signal.SIGKILL
    assert not list(shell.folder.glob("R/models/[!.]*"))
    mark(checkpoint)

    done = shell.fork("nas.finalize", "R", "--steps", "2")
    assert (done.status, done.stderr) == (0, "")
    assert not checkpoint.exists(), "that of a finished model is removed"
    (model,) = shell.folder.glob("R/models/[!.]*")
    assert {"config.json", "evaluation.json", "README.md"} <= set(list_files(model))
    check_model_is_resumed_and_the_same(shell, model, "--steps", "2")


@pytest.mark.slow
def test_killed_in_the_middle_of_the_distillation(shell: Shell, inputs: Inputs) -> None:
    """It goes on at the last checkpoint, and ends in the weights of a run that was left alone."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    (shell.folder / "one.toml").write_text(FRAMES)
    arguments = ["R", "--steps", "115", "--recipe", "one.toml"]
    process = shell.start_fork("nas.finalize", *arguments)
    checkpoint = wait_for_step(shell, 1)
    os.kill(process.pid, signal.SIGKILL)
    process.finish()
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 115
    mark(checkpoint)
    assert not list(shell.folder.glob("R/models/[!.]*"))
    resumed = shell.fork("nas.finalize", *arguments)
    assert (resumed.status, resumed.stderr) == (0, "")
    assert re.search(r"distilled +115 steps", resumed.stdout)
    (model,) = shell.folder.glob("R/models/[!.]*")
    check_model_is_resumed_and_the_same(shell, model, "--steps", "115", "--recipe", "one.toml")


@pytest.mark.slow
def test_killed_at_ten_moments_of_three_phases(shell: Shell, inputs: Inputs) -> None:
    """It ends in the weights of a run that was left alone, wherever it was killed."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    phases = [FRAMES.replace('"frames"', f'"{name}"').replace("100", "40") for name in ("one", "two", "three")]
    (shell.folder / "three.toml").write_text("".join(phases))
    arguments = ["R", "--recipe", "three.toml"]
    moments, killed = random.Random(0), 0
    while killed < 10:
        process = shell.start_fork("nas.finalize", *arguments)
        time.sleep(moments.uniform(2, 14))
        with contextlib.suppress(ProcessLookupError):  # it may be done
            os.kill(process.pid, signal.SIGKILL)
        done = process.finish()
        assert done.status in (0, -signal.SIGKILL), done.stderr
        killed += done.status != 0
        for path in shell.folder.glob("R/finalize/*.pt"):
            assert torch.load(path, weights_only=True)["step"] <= 40
        for model in shell.folder.glob("R/models/[!.]*"):
            shutil.rmtree(model)
    done = shell.fork("nas.finalize", *arguments)
    assert (done.status, done.stderr) == (0, "")
    (model,) = shell.folder.glob("R/models/[!.]*")
    alone = shell.fork("nas.finalize", *arguments, "--out", "alone")
    assert (alone.status, alone.stderr) == (0, "")
    assert (shell.folder / "alone" / model.name / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def wait_for_step(shell: Shell, step: int) -> Path:
    """The checkpoint of a distillation that has come so far; there is one before its first step."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        for path in shell.folder.glob("R/finalize/*.pt"):
            if torch.load(path, weights_only=True)["step"] >= step:
                return path
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step}")


def mark(checkpoint: Path) -> None:
    """Put a point into its curve: only who reads the checkpoint knows of it."""
    state = torch.load(checkpoint, weights_only=True)
    torch.save(state | {"curve": [(1, 12.5), *state["curve"]]}, checkpoint)


def check_model_is_resumed_and_the_same(shell: Shell, model: Path, *arguments: str) -> None:
    """Its curve has the point of `mark`, its weights are those of a distillation that was left alone."""
    curve = read_json(model / "evaluation.json")["curve"]
    shutil.rmtree(shell.folder / "R" / "finalize")
    alone = shell.fork("nas.finalize", "R", *arguments, "--out", "alone")
    assert (alone.status, alone.stderr) == (0, "")
    other = shell.folder / "alone" / model.name
    assert curve == [[1, 12.5], *read_json(other / "evaluation.json")["curve"]]
    assert (other / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_interrupted_finalize_says_how_to_continue(shell: Shell, inputs: Inputs) -> None:
    shutil.copytree(make_run(inputs), shell.folder / "R")
    process = shell.start_fork("nas.finalize", "R", "--steps", "50")
    time.sleep(2)
    os.kill(process.pid, signal.SIGINT)
    done = process.finish()
    assert done.status == 130
    assert done.stderr.strip().splitlines()[-1].endswith("to continue: python -m nas.finalize R --steps 50")
    assert "Traceback" not in done.stderr
