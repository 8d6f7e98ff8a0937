"""Processes that are stopped in the middle, by `kill -9` or Ctrl-C, and the same command again."""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from nas.machine.files import read_json
from tests.support.commands import (
    Inputs,
    Shell,
    list_files,
    make_inputs,
    make_run,
    read_trials,
    wait_for_file,
    was_trained,
)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory)


@pytest.fixture
def shell(tmp_path: Path, inputs: Inputs) -> Shell:
    return Shell(tmp_path, inputs.cache)


def in_progress(folder: Path) -> list[FrozenTrial]:
    return [trial for trial in read_trials(folder) if trial.state == TrialState.RUNNING]


def check_files_are_whole(folder: Path) -> None:
    """Every JSON file parses, every database is consistent."""
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("*.db"):
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def check_search_is_complete(folder: Path, trained: int) -> None:
    """Nothing in progress, nothing waiting that was started, nothing trained twice, all files there."""
    check_files_are_whole(folder)
    trials = read_trials(folder)
    assert not in_progress(folder)
    done = [trial for trial in trials if was_trained(trial)]
    assert len(done) == trained
    assert max(Counter(trial.user_attrs["digest"] for trial in done).values()) == 1
    for trial in done:
        assert read_json(folder / "trials" / str(trial.number) / "result.json")["score_db"] == trial.user_attrs["score"]
    for trial in trials:
        if trial.state == TrialState.FAIL:
            again = [each for each in trials if each.user_attrs.get("retry_of") == trial.number]
            assert len(again) == 1 or trial.user_attrs.get("attempt") == 3
            assert all(trial.params.items() <= each.params.items() for each in again if each.state.is_finished())


# Search


def test_killed_trial_is_tried_again_and_nothing_else_is_lost(shell: Shell, inputs: Inputs) -> None:
    folder = shell.folder / "R"
    shutil.copytree(make_run(inputs), folder)
    before, files = read_trials(folder), list_files(folder / "trials")
    arguments = inputs.arguments("--run", "R", "--trials", "3")
    with shell.start("-m", "nas.search", *arguments) as process:
        wait_for_file(folder, "trials/*/config.json", known=set(folder.glob("trials/*/config.json")))
        process.send_signal(signal.SIGSTOP)
        for module, words in (("nas.search", arguments), ("nas.finalize", ["R"])):
            other = shell.fork(module, *words)
            assert other.status == 2 and "R is in use by another process" in other.error
        process.kill()
    assert process.returncode == -signal.SIGKILL
    check_files_are_whole(folder)
    (killed,) = in_progress(folder)
    after_kill = [trial for trial in read_trials(folder) if trial.state.is_finished()]

    done = shell.fork("nas.search", *arguments)
    assert (done.status, done.stderr) == (0, "")
    assert "R (continued)" in done.stdout
    check_search_is_complete(folder, trained=3)
    trials = read_trials(folder)
    assert trials[: len(before)] == before
    assert [trial for trial in trials if trial.number < killed.number] == after_kill
    assert files.items() <= list_files(folder / "trials").items()
    assert trials[killed.number].state == TrialState.FAIL and "status" not in trials[killed.number].user_attrs
    (again,) = (trial for trial in trials if trial.user_attrs.get("retry_of") == killed.number)
    assert again.user_attrs["attempt"] == 2 and again.params == killed.params and was_trained(again)


def test_interrupted_search_says_how_to_continue(shell: Shell, inputs: Inputs) -> None:
    """In a folder with a space in its name: what is printed can be pasted."""
    folder = shell.folder / "my run"
    shutil.copytree(make_run(inputs), folder)
    process = shell.start_fork("nas.search", *inputs.arguments("--run", "my run", "--trials", "3"))
    wait_for_file(folder, "trials/*/config.json", known=set(folder.glob("trials/*/config.json")))
    os.kill(process.pid, signal.SIGINT)
    done = process.finish()
    assert done.status == 130
    assert "Traceback" not in done.stderr
    check_files_are_whole(folder)
    assert not list(folder.rglob(".*.json*"))
    command = done.stderr.strip().splitlines()[-1].split("to continue: ")[1]
    python, dash, module, *again = shlex.split(command)
    assert (python, dash, module) == ("python", "-m", "nas.search")
    done = shell.fork(module, *again)
    assert (done.status, done.stderr) == (0, "")
    assert "my run (continued)" in done.stdout
    check_search_is_complete(folder, trained=3)
    command = done.stdout.strip().splitlines()[-1].split(maxsplit=1)[1]
    assert shlex.split(command) == ["python", "-m", "nas.finalize", "my run"]


def test_interrupted_while_targets_are_computed(shell: Shell, inputs: Inputs) -> None:
    alone = Shell(shell.folder, shell.folder / "cache")
    arguments = inputs.arguments("--run", "R", "--trials", "1", "--steps", "1")
    process = alone.start_fork("nas.search", *arguments)
    first = wait_for_file(alone.cache, "targets/*/*.safetensors")
    os.kill(process.pid, signal.SIGINT)
    done = process.finish()
    assert done.status == 130
    assert "to continue: python -m nas.search --teacher-weights" in done.stderr
    kept = first.stat().st_mtime_ns
    assert not (first.parent / "index.json").exists()
    done = alone.fork("nas.search", *arguments)
    assert (done.status, done.stderr) == (0, "")
    assert first.stat().st_mtime_ns == kept, "a clip that was done is not done again"
    assert (first.parent / "index.json").exists()
    check_search_is_complete(shell.folder / "R", trained=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_at_any_moment(shell: Shell, inputs: Inputs, seed: int) -> None:
    alone = Shell(shell.folder, shell.folder / "cache")
    arguments = inputs.arguments("--run", "R", "--trials", "4")
    moments = random.Random(seed)
    for _ in range(12):
        process = alone.start_fork("nas.search", *arguments)
        time.sleep(moments.choice([0.2, 1, 3, 8]) * (0.5 + moments.random()))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        done = process.finish()
        assert done.status in (0, -signal.SIGKILL), done.stderr
        assert done.stderr == ""
        check_files_are_whole(shell.folder)
    done = alone.fork("nas.search", *arguments)
    assert (done.status, done.stderr) == (0, "")
    check_search_is_complete(shell.folder / "R", trained=4)


@pytest.mark.slow
def test_killed_while_the_study_is_made(shell: Shell, inputs: Inputs) -> None:
    """Its tables are made one after the other: any of them may be the last."""
    make_run(inputs)
    for count in range(20):
        name = f"R{count}"
        process = shell.start_fork("nas.search", *inputs.arguments("--run", name, "--trials", "1", "--steps", "1"))
        wait_for_file(shell.folder, f"{name}/study.db")
        time.sleep(count * 0.015)
        os.kill(process.pid, signal.SIGKILL)
        process.finish()
        done = shell.fork("nas.search", *inputs.arguments("--run", name, "--trials", "1", "--steps", "1"))
        assert (done.status, done.stderr) == (0, ""), count
        check_search_is_complete(shell.folder / name, trained=1)


# Finalize


@pytest.mark.slow
def test_killed_after_the_distillation(shell: Shell, inputs: Inputs) -> None:
    """Of what was distilled nothing is done again, and the model appears complete or not at all."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    process = shell.start_fork("nas.finalize", "R", "--steps", "2")
    checkpoint = wait_for_file(shell.folder, "R/finalize/*.pt")
    os.kill(process.pid, signal.SIGKILL)
    assert process.finish().status == -signal.SIGKILL
    assert not list(shell.folder.glob("R/models/[!.]*"))
    state = torch.load(checkpoint, weights_only=True)
    assert state["step"] == 2
    written = checkpoint.stat().st_mtime_ns

    done = shell.fork("nas.finalize", "R", "--steps", "2")
    assert (done.status, done.stderr) == (0, "")
    assert not checkpoint.exists() or checkpoint.stat().st_mtime_ns == written
    (model,) = shell.folder.glob("R/models/[!.]*")
    assert {"config.json", "diffusion_pytorch_model.safetensors", "evaluation.json", "README.md"} <= set(
        list_files(model)
    )
    assert [tuple(point) for point in read_json(model / "evaluation.json")["curve"]] == state["curve"]


@pytest.mark.slow
def test_killed_in_the_middle_of_the_distillation(shell: Shell, inputs: Inputs) -> None:
    """It goes on at the last checkpoint, and ends in the weights of a run that was left alone."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    arguments = ["R", "--steps", "115"]
    process = shell.start_fork("nas.finalize", *arguments)
    checkpoint = wait_for_file(shell.folder, "R/finalize/*.pt")
    os.kill(process.pid, signal.SIGKILL)
    process.finish()
    state = torch.load(checkpoint, weights_only=True)
    assert 0 < state["step"] < 115
    # Only who reads the checkpoint knows of this point.
    torch.save(state | {"curve": [(1, 12.5), *state["curve"]]}, checkpoint)
    assert not list(shell.folder.glob("R/models/[!.]*"))
    resumed = shell.fork("nas.finalize", *arguments)
    assert (resumed.status, resumed.stderr) == (0, "")
    assert re.search(r"distilled +115 steps", resumed.stdout)
    (model,) = shell.folder.glob("R/models/[!.]*")
    assert read_json(model / "evaluation.json")["curve"][0] == [1, 12.5]
    shutil.rmtree(shell.folder / "R" / "finalize")
    alone = shell.fork("nas.finalize", *arguments, "--out", "alone")
    assert (alone.status, alone.stderr) == (0, "")
    weights = "diffusion_pytorch_model.safetensors"
    assert (shell.folder / "alone" / model.name / weights).read_bytes() == (model / weights).read_bytes()


def test_interrupted_finalize_says_how_to_continue(shell: Shell, inputs: Inputs) -> None:
    shutil.copytree(make_run(inputs), shell.folder / "R")
    process = shell.start_fork("nas.finalize", "R", "--steps", "50")
    time.sleep(2)
    os.kill(process.pid, signal.SIGINT)
    done = process.finish()
    assert done.status == 130
    assert done.stderr.strip().splitlines()[-1].endswith("to continue: python -m nas.finalize R --steps 50")
    assert "Traceback" not in done.stderr


def test_interrupted_while_it_starts(shell: Shell) -> None:
    """Ctrl-C may come before anything is printed, while libraries are imported."""
    with shell.start("-m", "nas.search", "--latency-budget", "30ms", "--clips", "nowhere") as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while maps.exists() and "libtorch" not in maps.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert "Traceback" not in stderr
    assert process.returncode == 130
