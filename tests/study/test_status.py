"""How a search is doing, looked at from outside: nothing is written, whatever state the run is in."""

import gc
from io import StringIO
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from nas.machine.locks import is_held
from nas.study.run import Run, open_run
from nas.study.status import print_status
from tests.study.test_study import Arithmetic, search
from tests.support.run_folders import list_files
from tests.support.small_runs import CONTENTS, SETTINGS, make_study


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made, _ = open_run(SETTINGS, tmp_path / "R", CONTENTS)
    return made


def status(run: Run) -> dict[str, str]:
    """What is printed, by label; of the front also the rows."""
    gc.collect()  # a study that somebody had open closes its database
    before = list_files(run.folder)
    console = Console(file=StringIO(), width=1000, highlight=False)
    print_status(console, run)
    assert list_files(run.folder) == before
    assert isinstance(console.file, StringIO)
    text, _, front = console.file.getvalue().partition("front     ")
    lines = {line.split(" ", 1)[0]: line[10:] for line in text.splitlines()}
    return lines | ({"front": front} if front else {})


def test_a_run_without_a_study(run: Run) -> None:
    found = status(run)
    assert found["run"] == f"{run.folder}, nobody works on it"
    assert found["trials"].startswith("there is no study yet: the same python -m nas.search")
    assert found["budget"] == "30 ms per frame at 512x512 x 17 frames for iphone-16-pro"
    with run.lock():
        found = status(run)
    assert found["run"].endswith("somebody works on it now") and found["trials"].endswith("targets come first")


def test_a_search_that_has_ended(run: Run) -> None:
    make_study(run.folder)
    found = status(run)
    assert "scored" in found["trials"] and "over budget" in found["trials"] and "running" not in found
    assert found["last"].startswith("outcome ") and found["last"].endswith(" s ago")
    assert found["best"].startswith("#") and "ms/frame*" in found["best"]
    assert "no other beats" in found["front"] and len(found["front"].splitlines()) >= 3


def test_a_search_that_was_killed_in_a_trial_and_one_that_goes_on(run: Run) -> None:
    """The kill of the trial is that of a process: it stays as running in the database."""
    with pytest.raises(KeyboardInterrupt):
        search(run.folder, Arithmetic(interrupt_at=0))
    found = status(run)
    assert "cut off" in found["running"] and "0 of 10 steps" in found["running"] and found["running"].startswith("#")
    assert "queued" not in found
    optuna.load_study(study_name=None, storage=f"sqlite:///{run.folder / 'study.db'}").enqueue_trial({})
    assert status(run)["queued"].startswith("1 to come first")
    with run.lock():
        assert is_held(run.folder)
        found = status(run)
    assert "cut off" not in found["running"] and not is_held(run.folder)
