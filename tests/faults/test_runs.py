"""Run folders and studies that are damaged, foreign, shared or gone: one true line, nothing mixed, nothing touched."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.data import splits
from nas.data.clips import Clip
from nas.latency.budget import format_ms
from nas.machine.files import read_json, write_json
from nas.study import study as study_module
from nas.study.contents import changes, contents_of_space, in_one_line
from nas.study.presence import Presence
from nas.study.run import Run, load_run, newest_run, open_run
from nas.study.settings import RunSettings
from nas.study.storage import storage_url
from nas.study.study import StudyLimits, load_study, open_study
from nas.study.table import TrialTable
from nas.terminal.console import StatusLine
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, positive_int, seed_number
from tests.study.test_study import Arithmetic, search
from tests.support.errors import refusal
from tests.support.run_folders import list_files
from tests.terminal.test_console import outcome, plain_console, text_of

SETTINGS = RunSettings("wan-tiny", None, None, "30ms", "iphone-16-pro", 512, 512, 17, "hybrid", 10, 0)
CONTENTS = {"clip": {"a.mp4": "train 1", "b.mp4": "test 2"}, "weights of teacher": {"wan-tiny": "3"}}


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# config.json


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["settings"].pop(name)


def setting(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["settings"].update({name: value})


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (without("seed"), "'seed' is missing"),
    "missing with a default": (lambda data: data.pop("contents"), "'contents' is missing"),
    "added": (setting("colour", "red"), "'colour' is not known"),
    "text for a number": (setting("steps", "ten"), "'steps' has to be a whole number, got 'ten'"),
    "float for a number": (setting("frames", 17.0), "'frames' has to be a whole number, got 17.0"),
    "boolean for a number": (setting("seed", True), "'seed' has to be a whole number, got True"),
    "null for a text": (setting("teacher", None), "'teacher' has to be a text, got None"),
    "number for an optional text": (setting("clips", 3), "'clips' has to be a text or null, got 3"),
    "text for a list": (setting("plugins", "mine"), "'plugins' has to be a list"),
    "no size": (setting("height", 0), "at least 1"),
    "too large a seed": (setting("seed", 2**32), "seed has to be from 0 to 4294967295"),
    "budget without a unit": (setting("budget", "30"), "30ms"),
    "settings that are a list": (lambda data: data.update(settings=[]), "'settings' has to be an object"),
    "another format": (lambda data: data.update(format=2), "another version"),
}


@pytest.mark.parametrize("row", CONFIGS)
def test_a_config_that_is_not_what_was_written(row: str) -> None:
    change, expected = CONFIGS[row]
    open_run(SETTINGS, Path("R"), CONTENTS)
    data = read_json(Path("R/config.json"))
    change(data)
    write_json(Path("R/config.json"), data)
    before = list_files(Path("R"))
    for call in (lambda: load_run(Path("R")), lambda: open_run(SETTINGS, Path("R"), CONTENTS)):
        message = refusal(call)
        assert expected in message and "R/config.json" in message and "new run" in message
    assert list_files(Path("R")) == before


def test_a_config_that_cannot_be_read() -> None:
    Path("R/config.json").mkdir(parents=True)
    assert "R/config.json cannot be read" in refusal(lambda: load_run(Path("R")))
    Path("S").mkdir()
    for text in ("[" * 100_000, "9" * 5000):
        Path("S/config.json").write_text(text)
        assert "S/config.json is not valid JSON" in refusal(lambda: load_run(Path("S")))


def test_one_broken_run_does_not_keep_others_from_starting() -> None:
    good, _ = open_run(SETTINGS, None, CONTENTS)
    for name, text in (("old", '{"format": 1}'), ("cut", '{"for'), ("list", "[]")):
        Path("runs", name).mkdir()
        Path("runs", name, "config.json").write_text(text)
    Path("runs/strange/config.json").mkdir(parents=True)
    lines: list[str] = []
    assert newest_run(lines.append).folder == good.folder
    assert sorted(line.split()[2] for line in lines) == [
        f"runs/{name}/config.json" for name in ("cut", "list", "old", "strange")
    ]
    assert open_run(SETTINGS, None, CONTENTS) == (good, True)
    assert not open_run(replace(SETTINGS, seed=1), None, CONTENTS)[1]


# What a run depends on


def test_other_contents_are_said_and_refused() -> None:
    run, _ = open_run(SETTINGS, Path("R"), CONTENTS)
    other = {
        "clip": {"a.mp4": "score 1", "c.mp4": "train 4"},
        "weights of teacher": {"wan-tiny": "5"},
    }
    message = refusal(lambda: open_run(SETTINGS, Path("R"), other))
    assert "clip a.mp4 was for train and is for score, clip b.mp4 is gone, clip c.mp4 is new and 1 more" in message
    assert "restore" in message and "new run" in message
    assert "weights of teacher wan-tiny has changed" in in_one_line(changes(run.contents, other)[3:])
    run.check_contents({"weights of teacher": CONTENTS["weights of teacher"]})
    assert load_run(Path("R")).contents == CONTENTS


def test_a_search_without_a_folder_finds_the_run_with_its_contents() -> None:
    first, _ = open_run(SETTINGS, None, CONTENTS)
    assert "clip" in refusal(lambda: open_run(SETTINGS, None, {"clip": {}}))
    second, _ = open_run(SETTINGS, Path("runs/second"), {"clip": {}})
    assert open_run(SETTINGS, None, {"clip": {}})[0].folder == second.folder
    assert open_run(SETTINGS, None, CONTENTS)[0].folder == first.folder


def test_other_versions_are_a_warning() -> None:
    run, _ = open_run(SETTINGS, Path("R"), CONTENTS)
    assert load_run(Path("R")).version_changes() == []
    older = replace(run, versions={**run.versions, "torch": "1.0"})
    assert len(older.version_changes()) == 1 and "torch 1.0 -> " in older.version_changes()[0]


def test_contents_of_a_space_cover_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents_of_space("turbo3d")
    assert contents_of_space("turbo3d") == before
    assert "dense_conv3d" in before["part"] and "memory_conv2d" not in before["part"]
    real = Path.read_bytes

    def edited(path: Path) -> bytes:
        return real(path) + (b"# edited" if path.name == "dense_conv3d.py" else b"")

    monkeypatch.setattr(Path, "read_bytes", edited)
    assert changes(before, contents_of_space("turbo3d")) == ["part dense_conv3d has changed"]


def test_added_files_never_move_a_clip_from_tests_to_training() -> None:
    def split(numbers: range) -> dict[int, str]:
        # Any text whose first digits are as random as those of a digest is as good as one.
        clips = {
            f"{(number * 2654435761 + 12345) % 2**32:08x}0000": Clip(Path(str(number)), 0, 9) for number in numbers
        }
        return {int(clip.path.name): name for clip, name in splits._split_by_content(clips).items()}

    for start in range(300):
        for count in range(3, 15):
            before, after = split(range(start, start + count)), split(range(start, start + count + 1))
            assert set(before.values()) == set(after.values()) == {"train", "score", "test"}
            assert not [clip for clip in before if (before[clip], after[clip]) == ("test", "train")]
    large = list(split(range(3000)).values())
    assert 0.18 < large.count("test") / 3000 < 0.22 and 0.18 < large.count("score") / 3000 < 0.22


# Making and losing a folder


def test_searches_that_start_together_get_a_folder_each() -> None:
    found: list[Path] = []
    barrier = threading.Barrier(6)

    def start(seed: int) -> None:
        barrier.wait()
        found.append(open_run(replace(SETTINGS, seed=seed), None, CONTENTS)[0].folder)

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 6
    assert {load_run(folder).settings.seed for folder in found} == set(range(6))


def test_of_searches_that_start_together_in_one_folder_one_gets_it() -> None:
    ended: list[str] = []
    barrier = threading.Barrier(6)

    def start(seed: int) -> None:
        barrier.wait()
        try:
            run, _ = open_run(replace(SETTINGS, seed=seed), Path("R"), CONTENTS)
            ended.append(f"made {run.settings.seed}")
        except UserError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line for line in ended if line.startswith("made")] == [f"made {load_run(Path('R')).settings.seed}"]
    assert all("in use" in line or "--seed" in line for line in ended if not line.startswith("made"))


def test_a_folder_that_a_kill_left_before_its_config_becomes_the_run() -> None:
    Path("R").mkdir()
    Path("R/.lock").touch()
    assert not open_run(SETTINGS, Path("R"), CONTENTS)[1]
    assert load_run(Path("R")).settings == SETTINGS


@pytest.mark.parametrize("harm", ["folder deleted", "folder moved", "database deleted", "database replaced"])
def test_what_is_gone_is_not_called_saved(harm: str) -> None:
    open_run(SETTINGS, Path("R"), CONTENTS)
    Path("R/study.db").write_bytes(b"1")
    present = Presence.of(Path("R"), "config.json", "study.db")
    present.check()
    if harm.startswith("folder"):
        shutil.move("R", "S") if harm.endswith("moved") else shutil.rmtree("R")
    else:
        Path("R/study.db").rename("R/away.db")
        if harm.endswith("replaced"):
            Path("R/study.db").write_bytes(b"1")
    message = refusal(present.check)
    assert ("R/study.db" if harm.startswith("database") else "R ") in message and "not saved" in message


# study.db


def make_study(folder: Path) -> Path:
    """A study of a few trials in a folder; its database is at rest."""
    folder.mkdir(exist_ok=True)
    search(folder, Arithmetic(), trials=2)
    database = folder / "study.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return database


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("made"))


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
        lambda: open_study(storage_url(path), 0, warmup_steps=5),
    ):
        message = refusal(call)
        assert expected in message and str(path) in message and "new run" in message
    assert (list_files(tmp_path), path.is_file() and path.read_bytes()) == before


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
        study = open_study(run.storage_url, seed, warmup_steps=5)
        study.set_user_attr("name", name)
        assert load_study(run.storage_url).user_attrs == {"name": name}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_trial_that_is_cut_off_again_and_again_is_said(tmp_path: Path) -> None:
    given_up: list[tuple[int, str]] = []
    for _ in range(study_module.MAX_ATTEMPTS + 1):
        study = open_study(
            storage_url(tmp_path / "study.db"),
            0,
            warmup_steps=5,
            on_given_up=lambda number, decoder: given_up.append((number, decoder)),
        )
        study.ask()
    assert [number for number, _ in given_up] == [study_module.MAX_ATTEMPTS - 1]


# What is printed


@pytest.mark.parametrize(
    ("milliseconds", "budget", "text"),
    [
        (21.74, 30.0, "21.7"),
        (0.304, 0.3, "0.304"),
        (30.004, 30.0, "30.004"),
        (29.96, 30.0, "30.0"),
        (0.28, 0.3, "0.28"),
        (0.0123, 1.0, "0.012"),
        (12345.6, 30.0, "12345.6"),
    ],
)
def test_a_latency_has_enough_digits(milliseconds: float, budget: float, text: str) -> None:
    assert format_ms(milliseconds, budget) == text


def test_more_were_trained_than_are_asked_for() -> None:
    console = plain_console()
    table = TrialTable(console, StudyLimits(2), StatusLine(console), trained=0)
    for number in range(4):
        table.add(outcome(number))
    assert table.counts() == "4 trained"


def test_what_takes_long_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a terminal a line comes again and again, though nobody calls for it."""
    monkeypatch.setattr("nas.terminal.console._TICK", 0.01)
    monkeypatch.setattr("nas.terminal.console._STATUS_INTERVAL", 0.05)
    console = plain_console()
    printed = threading.Event()
    real = console.print

    def note(*values: Any, **options: Any) -> None:
        real(*values, **options)
        printed.set()

    monkeypatch.setattr(console, "print", note)
    with StatusLine(console) as status:
        status.show("waiting for the latency of something")
        assert printed.wait(20)
    assert text_of(console).startswith("waiting for the latency of something\n")


# Arguments


@pytest.mark.parametrize("text", ["-1", str(2**32), "9" * 5000, "1.5", "nan", "", "0x10"])
def test_a_seed_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser("nas.search", "")
    parser.add_argument("--seed", type=seed_number)
    parser.add_argument("--steps", type=positive_int)
    for option in ("--seed", "--steps"):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([f"{option}={text}"])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1 and option in error and len(error) < 300
    assert parser.parse_args(["--seed", str(2**32 - 1)]).seed == 2**32 - 1
