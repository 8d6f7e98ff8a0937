"""An agent's folder and its queue: what is another's is left alone, what is damaged is named, and stays as it is."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from nas.latency import LatencyRecord, Workload
from nas.latency.__main__ import main
from nas.latency.agent.folder import MARKER, claim_folder
from nas.latency.agent.queue import Queue
from nas.machine.temporary import PREFIX as TEMPORARY
from nas.machine.temporary import temporary_folder
from tests.support.agents import running_agent
from tests.support.fake_agents import JOB, RECORD
from tests.support.run_folders import list_files

WORKLOAD = Workload(16, 16, 1)


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which `serve` does not begin; the folder stays as it is."""
    before = list_files(folder)
    assert main(["serve", "--port", "0", "--folder", str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert {name: data for name, data in list_files(folder).items() if name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }
    return error


# The folder


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("incoming", "uploads"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "holiday.mp4").write_text("mine")
    assert f"is not an agent's folder (it holds 'incoming' and no {MARKER})" in refused(tmp_path, capsys)


def test_of_its_own_folder_an_agent_deletes_what_it_made(tmp_path: Path) -> None:
    claim_folder(tmp_path)
    for name in ("incoming/upload-x", "incoming/notes.txt", f"uploads/{JOB}", "uploads/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "incoming" / "upload-folder").mkdir()
    with running_agent(tmp_path):
        left = {
            path.relative_to(tmp_path).as_posix()
            for name in ("incoming", "uploads")
            for path in tmp_path.glob(f"{name}/*")
        }
    assert left == {"incoming/notes.txt", "incoming/upload-folder", "uploads/notes.txt"}


def test_what_a_killed_agent_left_of_its_measurements_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the system's folder for temporary files, at the next start; what others left there or work with stays."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (temporary / "nas-tmp-notes").mkdir()
    with temporary_folder(temporary) as used:
        killed = temporary / f"{TEMPORARY}0123456789abcdef"
        (killed / "decoder.mlpackage").mkdir(parents=True)
        (killed / "task.json").write_text("{}")
        with running_agent(tmp_path / "agent"):
            assert {path.name for path in temporary.iterdir()} == {used.name, "nas-tmp-notes"}


def test_folders_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    for name, words in (
        ("file", "it is there already"),
        ("file/below", "is a file, not a folder"),
        ("x" * 300, "long"),
    ):
        assert main(["serve", "--folder", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_a_disk_without_locks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(37, os.strerror(37))

    claim_folder(tmp_path)
    monkeypatch.setattr("fcntl.flock", missing)
    assert "cannot be locked on this disk: choose a folder on another disk" in refused(tmp_path, capsys)


@pytest.mark.parametrize(("text", "words"), [("", "ASCII"), ("two words", "ASCII"), (b"\xff\xfe", "it is not text")])
def test_files_that_hold_no_token(
    text: str | bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert words in refused(tmp_path, capsys, "--token-file", str(path))


# The queue


def a_queue(folder: Path, **changes: object) -> None:
    """A queue with one job; `changes` replace its columns."""
    claim_folder(folder)
    queue = Queue(folder)
    queue.submit(JOB, WORKLOAD)
    queue.finish(JOB, LatencyRecord.from_dict(RECORD), None)
    with sqlite3.connect(folder / "queue.db") as connection:
        for column, value in changes.items():
            connection.execute(f"UPDATE jobs SET {column} = ?", (value,))
    connection.close()


ROWS: dict[str, dict[str, object]] = {
    "no JSON": {"record": "{"},
    "no record": {"record": None},
    "NaN": {"record": json.dumps(RECORD).replace("2.0", "NaN")},
    "a record that lacks something": {"record": "{}"},
    "bytes": {"record": b"\xff\xfe"},
    "depth": {"record": "[" * 100_000},
    "no state": {"state": "finished"},
    "no size": {"workload": '{"height": 16}'},
    "true": {"workload": '{"height": true, "width": 16, "num_frames": 1}'},
}


@pytest.mark.parametrize("row", ROWS)
def test_jobs_that_no_agent_wrote(row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_queue(tmp_path, **ROWS[row])
    assert f"queue.db cannot be used: the job '{JOB}' is damaged" in refused(tmp_path, capsys)


def test_databases_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_queue(tmp_path)
    path = tmp_path / "queue.db"
    whole = path.read_bytes()
    for damaged in (b"no database at all " * 99, whole[:100], whole[: len(whole) // 2], whole[:4096] + b"\xff" * 4096):
        path.write_bytes(damaged)
        assert "queue.db cannot be used" in refused(tmp_path, capsys)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE jobs (name TEXT)")
    connection.close()
    assert "no such column" in refused(tmp_path, capsys)
