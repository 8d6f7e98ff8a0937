"""What people ask of searches that were: their trials for another budget, their state, limits that are not one."""

import shutil
from pathlib import Path

import pytest

from tests.support.commands import Inputs, Shell, refuse
from tests.support.run_folders import read_trials, was_trained


def test_an_earlier_run_counts_for_another_budget_with_more_limits(
    shell: Shell, inputs: Inputs, kept_run: Path
) -> None:
    """Its two candidates are all that is asked for: nothing is trained, and the front is there at once."""
    earlier = shutil.copytree(kept_run, shell.folder / "R")
    limits = ["--latency-budget", "0.21ms", "--max-params", "900M", "--max-size", "2GB", "--max-memory", "1GB"]
    arguments = inputs.arguments("--run", "S", "--from-run", "R", *limits)
    done = shell.fork("nas.search", *arguments)
    assert (done.status, done.stderr) == (0, ""), done.stderr
    assert "at most 1000 MB of activations, 900 M parameters and 2000 MB of package" in done.stdout
    assert done.stdout.count("   from R #") >= 2 and not (shell.folder / "S" / "trials").exists()
    scores = {trial.user_attrs["digest"]: trial.value for trial in read_trials(earlier) if was_trained(trial)}
    taken = [trial for trial in read_trials(shell.folder / "S") if "from" in trial.user_attrs]
    assert {trial.user_attrs["digest"]: trial.value for trial in taken} == scores
    for trial in taken:
        assert tuple(trial.constraints) == ("latency", "memory", "parameters", "size")
        assert max(trial.constraints.values()) <= 0 and trial.user_attrs["memory"] > 0
    again = shell.fork("nas.search", *arguments)
    assert (again.status, again.stderr) == (0, "")
    assert sum("from" in trial.user_attrs for trial in read_trials(shell.folder / "S")) == 2, "they are added once"


def test_the_state_of_a_run_is_printed_from_outside(shell: Shell, kept_run: Path) -> None:
    shutil.copytree(kept_run, shell.folder / "R")
    done = shell.fork("nas.search", "--status", "R")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("run       R, nobody works on it\n")
    assert "2 scored" in done.stdout and "\nfront     " in done.stdout
    refuse(shell, "nas.search", ["--status", "nowhere"], "nowhere is not a run folder")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--max-size", "20"], ["--max-size", "20MB", "'20'"]),
        (["--max-params", "many"], ["--max-params", "5M", "'many'"]),
        (["--device", "host", "--device", "host"], ["--device host is given twice"]),
        (["--from-run", "nowhere"], ["nowhere is not a run folder"]),
    ],
)
def test_limits_and_runs_that_are_none(shell: Shell, inputs: Inputs, words: list[str], expected: list[str]) -> None:
    refuse(shell, "nas.search", inputs.arguments(*words), *expected)
