"""Finalize, stopped in the middle by `kill -9` or Ctrl-C, and the same command again: no step is done twice."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from nas.machine.files import read_json
from tests.support.commands import Inputs, Shell, make_run, wait_for_file
from tests.support.run_folders import list_files


@pytest.mark.slow
def test_killed_after_the_distillation(shell: Shell, inputs: Inputs) -> None:
    """Of what was distilled nothing is done again, and the model appears complete or not at all."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    process = shell.start_fork("nas.finalize", "R", "--steps", "2")
    checkpoint = wait_for_file(shell.folder, "R/finalize/*.pt")
    os.kill(process.pid, signal.SIGKILL)
    assert process.finish().status == -signal.SIGKILL
    assert not list(shell.folder.glob("R/models/[!.]*"))
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
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
    arguments = ["R", "--steps", "115"]
    process = shell.start_fork("nas.finalize", *arguments)
    checkpoint = wait_for_file(shell.folder, "R/finalize/*.pt")
    os.kill(process.pid, signal.SIGKILL)
    process.finish()
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 115
    mark(checkpoint)
    assert not list(shell.folder.glob("R/models/[!.]*"))
    resumed = shell.fork("nas.finalize", *arguments)
    assert (resumed.status, resumed.stderr) == (0, "")
    assert re.search(r"distilled +115 steps", resumed.stdout)
    (model,) = shell.folder.glob("R/models/[!.]*")
    check_model_is_resumed_and_the_same(shell, model, "--steps", "115")


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
    weights = "diffusion_pytorch_model.safetensors"
    assert (other / weights).read_bytes() == (model / weights).read_bytes()


def test_interrupted_finalize_says_how_to_continue(shell: Shell, inputs: Inputs) -> None:
    shutil.copytree(make_run(inputs), shell.folder / "R")
    process = shell.start_fork("nas.finalize", "R", "--steps", "50")
    time.sleep(2)
    os.kill(process.pid, signal.SIGINT)
    done = process.finish()
    assert done.status == 130
    assert done.stderr.strip().splitlines()[-1].endswith("to continue: python -m nas.finalize R --steps 50")
    assert "Traceback" not in done.stderr
