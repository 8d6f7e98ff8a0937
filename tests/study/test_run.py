"""Run folders: reuse, refusal, locking."""

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nas.machine.files import disk_errors, write_json
from nas.study.run import load_run, newest_run, open_run
from nas.study.settings import RunSettings
from nas.terminal.errors import UserError

SETTINGS = RunSettings(
    teacher="wan-tiny",
    teacher_weights=None,
    clips=None,
    budget="30ms",
    device="iphone-16-pro",
    height=512,
    width=512,
    frames=17,
    space="hybrid",
    steps=10,
    seed=0,
)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_same_settings_continue_the_same_run() -> None:
    run, existed = open_run(SETTINGS, None)
    assert not existed and run.folder.parent == Path("runs") and run.folder.name.startswith("wan-tiny-30ms-")
    again, existed = open_run(replace(SETTINGS, budget="0.03s"), None)
    assert existed and again.folder == run.folder
    other, existed = open_run(replace(SETTINGS, seed=1), None)
    assert not existed and other.folder != run.folder
    assert load_run(run.folder).settings == SETTINGS


@pytest.mark.parametrize(
    ("change", "flag"),
    [({"teacher": "wan"}, "--teacher"), ({"space": "turbo3d"}, "--space"), ({"budget": "9ms"}, "--latency-budget")],
)
def test_a_run_of_other_settings_is_refused(change: dict[str, object], flag: str) -> None:
    open_run(SETTINGS, Path("mine"))
    with pytest.raises(UserError, match=flag):
        open_run(replace(SETTINGS, **change), Path("mine"))  # type: ignore[arg-type]


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_text("x")
    with pytest.raises(UserError, match="not a run folder"):
        open_run(SETTINGS, tmp_path / "holiday")
    assert [path.name for path in (tmp_path / "holiday").iterdir()] == ["photo.jpg"]


def test_no_run_yet() -> None:
    with pytest.raises(UserError, match=r"nas\.search"):
        newest_run()
    with pytest.raises(UserError, match="not a run folder"):
        load_run(Path("nowhere"))


def test_newest_is_the_one_worked_on_last() -> None:
    first, _ = open_run(SETTINGS, Path("runs/first"))
    open_run(replace(SETTINGS, seed=1), Path("runs/second"))
    assert newest_run().folder.name == "second"
    with first.lock():
        pass
    assert newest_run().folder.name == "first"


def test_broken_config_is_one_clear_line() -> None:
    run, _ = open_run(SETTINGS, Path("runs/broken"))
    (run.folder / "config.json").write_text('{"format": 1, "sett')
    with pytest.raises(UserError, match="not valid JSON"):
        load_run(run.folder)
    write_json(run.folder / "config.json", {"format": 99})
    with pytest.raises(UserError, match="another version"):
        load_run(run.folder)


def test_lock_is_exclusive_and_dies_with_its_process() -> None:
    run, _ = open_run(SETTINGS, Path("runs/locked"))
    code = """
from nas.study.run import *
r = load_run(Path('runs/locked'))
with r.lock(): print('held', flush=True); input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="in use"), run.lock():
            pass
        process.kill()
    with run.lock():
        pass


def test_full_disk_is_a_user_error_and_other_errors_are_not() -> None:
    with pytest.raises(UserError, match="the disk is full"), disk_errors("cannot write"):
        raise OSError(28, "No space left on device", "file")
    with pytest.raises(OSError, match="refused"), disk_errors("cannot write"):
        raise OSError(errno.ECONNREFUSED, "Connection refused")


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.json"
    write_json(path, {"old": 1})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"new": 2})
    assert "old" in path.read_text()
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["data.json"]
