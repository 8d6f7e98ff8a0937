"""Damage at random to what is read back of a run: always one line, and the file stays as it is. Seeded and bounded."""

import copy
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nas.machine.files import write_json
from nas.study.limits import StudyLimits
from nas.study.outcomes import read_outcomes, trained_count
from nas.study.remeasure import measured_leaders
from nas.study.run import Run, load_run, open_run
from nas.study.settings import RunSettings
from nas.study.storage import database_errors, storage_url
from nas.study.study import load_study, open_study
from nas.terminal.errors import UserError
from tests.study.test_study import Arithmetic, make_random, run
from tests.support.records import latency
from tests.support.run_folders import list_files
from tests.support.small_runs import CONTENTS, SETTINGS, make_study

WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "\x00",
    [],
    [1],
    {},
    {"a": 1},
)
"""Values that a damaged file may have anywhere."""


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in JSON, from the outside in."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def altered(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place."""
    if not path:
        return value
    changed = copy.deepcopy(data)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def damaged(data: bytes, source: random.Random) -> bytes:
    """Bytes cut off, changed, put in or taken out."""
    start = source.randrange(len(data))
    length = source.choice((1, 1, 4, 100, 5000))
    noise = source.randbytes(length)
    kinds = (
        data[:start],
        data[:start] + noise + data[start + length :],
        data[:start] + noise + data[start:],
        data[:start] + data[start + length :],
        data[:start] + bytes(length) + data[start + length :],
    )
    return source.choice(kinds)


def check(path: Path, *calls: Any) -> int:
    """Every call works or is refused in one line; nothing in the folder is touched. How many are refused."""
    before = list_files(path.parent), path.read_bytes()
    refused = 0
    for call in calls:
        try:
            call()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and path.name in str(error), error
        assert (list_files(path.parent), path.read_bytes()) == before
    return refused


def test_a_config_that_is_damaged_anywhere(tmp_path: Path) -> None:
    made_run, _ = open_run(SETTINGS, tmp_path / "R", CONTENTS)
    path = made_run.folder / "config.json"
    whole = path.read_bytes()
    data = json.loads(whole)
    refused = 0
    for place in places(data):
        for value in WRONG:
            path.write_text(json.dumps(altered(data, place, value)))
            refused += check(path, lambda: load_run(made_run.folder))
    source = random.Random(0)
    for _ in range(400):
        path.write_bytes(damaged(whole, source))
        refused += check(path, lambda: load_run(made_run.folder))
    assert refused > 500
    path.write_bytes(whole)
    assert load_run(made_run.folder).settings == SETTINGS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("made"))


def tamper(path: Path, command: str, parameters: tuple[Any, ...]) -> bool:
    """Change a database; whether its tables take such values."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            connection.execute(command, parameters)
        except sqlite3.IntegrityError:
            return False
        connection.commit()
    return True


def read(path: Path) -> None:
    """As finalize and measure do."""
    study = load_study(storage_url(path))
    assert trained_count(study) <= len(read_outcomes(study))


def test_a_study_whose_bytes_are_damaged(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    source, whole = random.Random(1), made.read_bytes()
    refused = 0
    for _ in range(60):
        path.write_bytes(damaged(whole, source))
        if path.stat().st_size:
            refused += check(path, lambda: read(path))
    assert refused > 30


@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_a_study_whose_values_are_damaged(made: Path, tmp_path: Path, count: int) -> None:
    """In every column of every table, and in the JSON of every attribute."""
    path = tmp_path / "study.db"
    source = random.Random(2)
    with closing(sqlite3.connect(made)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(table, row[1]) for table in names for row in connection.execute(f"PRAGMA table_info({table})")]
        rows = connection.execute("SELECT key, value_json FROM trial_user_attributes WHERE trial_id = 6").fetchall()
    values = [(table, column, value) for table, column in columns for value in (None, "x", -7, b"\xff\xfe", "[]", "{}")]
    attributes = [
        (key, json.dumps(altered(json.loads(text), place, value)))
        for key, text in rows
        for place in places(json.loads(text))
        for value in WRONG
    ]
    assert len(columns) > 40 and len(attributes) > 500
    commands: list[tuple[str, tuple[Any, ...]]] = [
        (f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
        for table, column, value in source.sample(values, count)
    ]
    change = "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = 6 AND key = ?"
    commands += [(change, (text, key)) for key, text in source.sample(attributes, count)]
    refused = 0
    for command, parameters in commands:
        shutil.copy(made, path)
        if tamper(path, command, parameters):
            refused += check(path, lambda: read(path))
    assert refused > count // 2


def test_a_search_refuses_what_reading_refuses(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    source, whole = random.Random(3), made.read_bytes()
    for _ in range(12):
        data = damaged(whole, source)
        path.write_bytes(data)
        try:
            read(path)
        except UserError:
            assert not data or check(path, lambda: open_study(storage_url(path), make_random(), steps=30)) == 1


def test_a_search_over_damaged_values_goes_on_or_is_refused(made: Path, tmp_path: Path) -> None:
    """Also where what is damaged is Optuna's own: choices, constraints, values."""
    path = tmp_path / "study.db"
    source = random.Random(4)
    with closing(sqlite3.connect(made)) as connection:
        columns = [
            (table, row[1])
            for table in ("trials", "trial_params", "trial_values", "trial_system_attributes")
            for row in connection.execute(f"PRAGMA table_info({table})")
        ]
    for _ in range(15):
        table, column = source.choice(columns)
        for file in tmp_path.glob("study.db*"):
            file.unlink()
        shutil.copy(made, path)
        value = source.choice((-7, "x", "[]", "{}", 1.5))
        tamper(path, f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
        try:
            with database_errors(tmp_path):
                study = open_study(storage_url(path), make_random(), steps=30)
                run(study, StudyLimits(3), Arithmetic())
        except UserError as error:
            assert "\n" not in str(error)


def test_measurements_that_are_damaged_anywhere(tmp_path: Path) -> None:
    measured = Run(tmp_path, RunSettings("t", None, None, "30ms", "host", 64, 64, 5, "hybrid", 3, 0))
    path = tmp_path / "measured" / "host.json"
    data = {"device": "host", "records": {"0123": latency(20.0, "measured").to_dict()}}
    write_json(path, data)
    assert measured_leaders(measured, []) == ("host", [])
    refused = 0
    for place in places(data):
        for value in WRONG:
            path.write_text(json.dumps(altered(data, place, value)))
            refused += check(path, lambda: measured_leaders(measured, []))
    assert refused > 100
