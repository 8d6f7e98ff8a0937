"""Studies that are damaged, foreign, newer or locked: one true line, and the file stays as it is."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from nas.distillation import recipes
from nas.latency import open_device
from nas.study import retries
from nas.study.run import Run
from nas.study.short_distillation import ShortDistillation
from nas.study.storage import storage_url
from nas.study.study import load_study, open_study
from nas.workers.job import Segment
from tests.study.test_study import make_random
from tests.support.errors import refusal
from tests.support.run_folders import list_files
from tests.support.small_runs import SETTINGS, make_study
from tests.support.small_targets import CONFIG, make_targets


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("made"))


def distilling(folder: Path) -> ShortDistillation:
    run, device = Run(folder, SETTINGS), open_device("iphone-16-pro")
    return ShortDistillation(run, make_targets(), device, torch.device("cpu"), recipes.CPU)


def execute(path: Path, command: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(command)
    connection.commit()
    connection.close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"x" * 4096
    path.write_bytes(data)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_foreign(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE holidays (day TEXT)")


def make_other_study(path: Path) -> None:
    path.unlink()
    optuna.create_study(storage=f"sqlite:///{path}", study_name="mine")


def attribute(key: str, value: object) -> Callable[[Path], None]:
    text = json.dumps(value).replace("'", "''")
    return lambda path: execute(path, f"UPDATE trial_user_attributes SET value_json = '{text}' WHERE key = '{key}'")


STUDIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not a database" * 99), "not a database"),
    "cut off": (cut, "malformed"),
    "scribbled over": (scribble, "damaged"),
    "a folder": (make_folder, "Is a directory"),
    "another program's": (make_foreign, "another program's: it has a table 'holidays'"),
    "another study": (make_other_study, "a study named 'mine'"),
    "newer": (lambda path: execute(path, "UPDATE alembic_version SET version_num = 'v9.0.0'"), "updating optuna"),
    "without a table": (lambda path: execute(path, "DROP TABLE trial_params"), "it has no table 'trial_params'"),
    "without an attribute": (
        lambda path: execute(path, "DELETE FROM trial_user_attributes WHERE key = 'parameters'"),
        "trial #0: 'parameters' is missing",
    ),
    "numbered otherwise": (
        lambda path: execute(path, "UPDATE trials SET number = number + 2"),
        "not numbered from 0",
    ),
    "unknown status": (attribute("status", "splendid"), "unknown status 'splendid'"),
    "latency in words": (attribute("latency", "slow"), "expected an object, got 'slow'"),
    "attribute that is no JSON": (
        lambda path: execute(path, "UPDATE trial_user_attributes SET value_json = '{'"),
        "Expecting",
    ),
    "score in words": (attribute("score", "good"), "its score has to be a finite number"),
}


def rename_option(path: Path) -> None:
    """As a study of an older version has it."""
    connection = sqlite3.connect(path)
    query = "SELECT trial_user_attribute_id, value_json FROM trial_user_attributes WHERE key = 'config'"
    for number, text in connection.execute(query).fetchall():
        old = text.replace('"projection":', '"expansion":')
        assert old != text
        change = "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?"
        connection.execute(change, (old, number))
    connection.commit()
    connection.close()


STUDIES["old names of options"] = (rename_option, "has no option 'expansion'")


@pytest.mark.parametrize("row", STUDIES)
def test_a_study_that_cannot_be_read_is_one_line_and_stays_as_it_is(row: str, made: Path, tmp_path: Path) -> None:
    damage, expected = STUDIES[row]
    path = tmp_path / "study.db"
    shutil.copy(made, path)
    damage(path)
    before = list_files(tmp_path), path.is_file() and path.read_bytes()
    for call in (
        lambda: load_study(storage_url(path)),
        lambda: open_study(storage_url(path), make_random(), steps=30),
    ):
        message = refusal(call)
        assert expected in message and str(path) in message and "new run" in message
    assert (list_files(tmp_path), path.is_file() and path.read_bytes()) == before


def test_a_study_that_another_program_keeps_for_itself_is_not_called_damaged(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.storage._LOCK_SECONDS", 0.1)
    path = tmp_path / "study.db"
    shutil.copy(made, path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("INSERT INTO trial_values SELECT * FROM trial_values LIMIT 0")
    connection.execute("UPDATE version_info SET schema_version = schema_version")
    message = refusal(lambda: load_study(storage_url(path)))
    connection.close()
    assert "locked" in message and "close that program" in message


def test_reading_a_study_leaves_no_file_behind(made: Path, tmp_path: Path) -> None:
    shutil.copy(made, tmp_path / "study.db")
    before = list_files(tmp_path)
    assert len(load_study(storage_url(tmp_path / "study.db")).get_trials()) > 2
    assert list_files(tmp_path) == before


@pytest.mark.parametrize("names", [("take?1", "take?2"), ("a#b", "a"), ("100%", "{x}"), ("a b", "ä")])
def test_every_folder_has_its_own_study(names: tuple[str, str], tmp_path: Path) -> None:
    for seed, name in enumerate(names):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, replace(SETTINGS, seed=seed))
        study = open_study(run.storage_url, make_random(seed), steps=30)
        study.set_user_attr("name", name)
        assert load_study(run.storage_url).user_attrs == {"name": name}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_trial_that_is_cut_off_again_and_again_is_said(tmp_path: Path) -> None:
    given_up: list[tuple[int, str]] = []
    for _ in range(retries.MAX_ATTEMPTS + 1):
        study = open_study(
            storage_url(tmp_path / "study.db"),
            make_random(),
            steps=30,
            on_given_up=lambda number, decoder: given_up.append((number, decoder)),
        )
        study.ask()
    assert [number for number, _ in given_up] == [retries.MAX_ATTEMPTS - 1]


def test_checkpoints_that_nothing_goes_on_from_are_removed(tmp_path: Path) -> None:
    """Of trials that a kill hit as they ended, and of those that were given up; not of those that are queued again."""
    search = distilling(tmp_path)
    ended, given_up, again, running = (f"{number:012x}" for number in range(4))
    study = optuna.create_study()
    for digest, attempt in ((ended, 1), (given_up, retries.MAX_ATTEMPTS), (again, 1)):
        trial = study.ask()
        trial.set_user_attr("digest", digest)
        trial.set_user_attr("attempt", attempt)
        study.tell(trial, **({"values": 1.0} if digest == ended else {"state": TrialState.FAIL}))
    retries.requeue(study, (), lambda number, decoder: None)
    assert [trial.state for trial in study.trials][3:] == [TrialState.WAITING]
    other = study.ask()  # takes the one that is queued
    other.set_user_attr("digest", again)
    study.ask().set_user_attr("digest", running)
    folder = tmp_path / "training"
    folder.mkdir()
    for name in (*(f"{digest}-0.pt" for digest in (ended, given_up, again, running)), "mine.pt", f"{ended}-0.txt"):
        (folder / name).touch()
    search.sweep(study)
    kept = {f"{again}-0.pt", f"{running}-0.pt", "mine.pt", f"{ended}-0.txt"}
    assert {path.name for path in folder.iterdir()} == kept
    study.tell(other, state=TrialState.FAIL)
    retries.requeue(study, (), lambda number, decoder: None)
    search.sweep(study)
    assert {path.name for path in folder.iterdir()} == kept, "it is queued again"


def test_nothing_is_made_in_the_place_of_a_run_that_is_gone(tmp_path: Path) -> None:
    """The loop looks for it now and then; a candidate may begin in between."""
    folder = tmp_path / "R"
    folder.mkdir()
    candidate = distilling(folder).candidate(CONFIG)
    candidate.record(0, Segment(()))
    assert [str(path.relative_to(folder)) for path in folder.rglob("*.json")] == ["trials/0/config.json"]
    folder.rename(tmp_path / "S")
    assert "was moved, deleted or replaced" in refusal(lambda: candidate.record(1, Segment(())))
    assert not folder.exists()
