"""Run folders that are damaged, shared or gone: one true line, and nothing touched."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.machine.files import read_json, write_json
from nas.study.presence import Presence
from nas.study.run import load_run, newest_run, open_run
from nas.terminal.errors import UserError
from tests.support.errors import refusal
from tests.support.run_folders import list_files
from tests.support.small_runs import CONTENTS, SETTINGS


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    "another format": (lambda data: data.update(format=3), "another version"),
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


def test_a_folder_that_cannot_be_made() -> None:
    Path("link").symlink_to("nowhere/at/all")
    assert "no folder can be made at link" in refusal(lambda: open_run(SETTINGS, Path("link"), CONTENTS))
    Path("runs").touch()
    assert "runs is a file" in refusal(lambda: open_run(SETTINGS, None, CONTENTS))
