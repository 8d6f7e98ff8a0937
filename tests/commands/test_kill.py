"""Searches that are stopped in the middle, by `kill -9` or Ctrl-C, and the same command again.

What was done before is still there, untouched, and what comes out is what an undisturbed process gives.
"""

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from nas.machine.files import read_json
from tests.support.commands import Inputs, Shell, make_run, wait_for_file
from tests.support.run_folders import list_files, read_trials, stamps, was_trained


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


def scores(folder: Path) -> dict[str, tuple[float, list[list[float]]]]:
    """Digest of every decoder that was scored -> its score and its curve, to the last bit."""
    found = {}
    for trial in read_trials(folder):
        if trial.user_attrs.get("status") == "scored":
            result = read_json(folder / "trials" / str(trial.number) / "result.json")
            found[trial.user_attrs["digest"]] = (result["score_db"], result["curve"])
    return found


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
            assert len(again) == 1 or trial.user_attrs.get("attempt") == 3 or "repeats" in trial.user_attrs
            for each in (each for each in again if each.state.is_finished()):
                # One that was itself killed while it was proposed has asked for some of its choices only.
                choices = each.user_attrs.get("choices", {}) if each.state == TrialState.FAIL else {}
                assert trial.params.items() <= (choices | each.params).items()


def test_killed_trial_is_tried_again_and_nothing_else_is_lost(shell: Shell, inputs: Inputs, undisturbed: Path) -> None:
    folder = shell.folder / "R"
    shutil.copytree(make_run(inputs), folder)
    before, files = read_trials(folder), list_files(folder / "trials")
    targets = stamps(shell.cache, "targets/*/*.safetensors")
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
    assert targets and targets.items() <= stamps(shell.cache, "targets/*/*.safetensors").items()
    assert scores(folder) == scores(undisturbed)


def test_interrupted_search_says_how_to_continue(shell: Shell, inputs: Inputs, undisturbed: Path) -> None:
    """In a folder with a space in its name: what is printed can be pasted."""
    folder = shell.folder / "my run"
    shutil.copytree(make_run(inputs), folder)
    before, files = read_trials(folder), list_files(folder / "trials")
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
    assert read_trials(folder)[: len(before)] == before
    assert files.items() <= list_files(folder / "trials").items()
    assert scores(folder) == scores(undisturbed)
    command = done.stdout.strip().splitlines()[-1].split(maxsplit=1)[1]
    assert shlex.split(command) == ["python", "-m", "nas.finalize", "my run"]


def test_interrupted_while_targets_are_computed(shell: Shell, inputs: Inputs) -> None:
    make_run(inputs)
    alone = Shell(shell.folder, shell.folder / "cache")
    arguments = inputs.arguments("--run", "R", "--trials", "1", "--steps", "1")
    process = alone.start_fork("nas.search", *arguments)
    folder = wait_for_file(alone.cache, "targets/*/*.safetensors").parent
    os.kill(process.pid, signal.SIGINT)
    done = process.finish()
    assert done.status == 130
    assert "to continue: python -m nas.search --teacher-weights" in done.stderr
    kept = stamps(folder, "*.safetensors")
    assert not (folder / "index.json").exists()
    done = alone.fork("nas.search", *arguments)
    assert (done.status, done.stderr) == (0, "")
    assert (folder / "index.json").exists()
    done_now = stamps(folder, "*.safetensors")
    assert len(kept) < len(done_now) and kept.items() <= done_now.items(), "a clip that was done is not done again"
    whole = inputs.cache / "targets" / folder.name
    assert {name: (folder / name).read_bytes() for name in done_now} == {
        path.name: path.read_bytes() for path in whole.glob("*.safetensors")
    }
    check_search_is_complete(shell.folder / "R", trained=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_at_any_moment(shell: Shell, inputs: Inputs, undisturbed: Path, seed: int) -> None:
    alone, folder = Shell(shell.folder, shell.folder / "cache"), shell.folder / "R"
    arguments = inputs.arguments("--run", "R", "--trials", "4")
    trials: list[FrozenTrial] = []
    targets: dict[str, tuple[int, int]] = {}
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
        trials, targets = check_nothing_is_lost(alone, folder, trials, targets)
    done = alone.fork("nas.search", *arguments)
    assert (done.status, done.stderr) == (0, "")
    check_nothing_is_lost(alone, folder, trials, targets)
    check_search_is_complete(folder, trained=4)
    # The published designs come first; what is proposed after a resume is drawn anew.
    published = {digest: score for digest, score in scores(folder).items() if digest in scores(undisturbed)}
    assert published.items() <= scores(undisturbed).items() and len(published) >= 1


def check_nothing_is_lost(
    shell: Shell, folder: Path, trials: list[FrozenTrial], targets: dict[str, tuple[int, int]]
) -> tuple[list[FrozenTrial], dict[str, tuple[int, int]]]:
    """Trials and shards of before are as they were; returns the finished trials and the shards of now."""
    now = stamps(shell.cache, "targets/*/*.safetensors")
    assert targets.items() <= now.items()
    # A study without its tables is one that was cut off while it was made.
    if not (trials or (folder / "trials").exists()):
        return [], now
    found = read_trials(folder)
    assert [found[trial.number] for trial in trials] == trials
    return [trial for trial in found if trial.state.is_finished()], now


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
