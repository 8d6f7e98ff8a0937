"""Measurements in processes of their own: what ends such a process is a result here; and statistics of rounds."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nas.latency import MeasurementFailedError, Workload
from nas.latency.devices import CORE_ML, IPHONE, open_device
from nas.latency.measurement.core_ml import UNITS, check_platform, measure_package
from nas.latency.measurement.isolated import run_isolated
from nas.latency.measurement.rounds import MAX_ATTEMPTS, summarise, time_until_steady
from nas.terminal.errors import UserError

ROOT = Path(__file__).parents[2]


def a_process(folder: Path, code: str) -> list[str]:
    """A program that gets a task's folder as `folder` and its task as `task`, and may call `answer(result)`."""
    start = """
    import json, os, pathlib, signal, subprocess, sys, time
    folder = pathlib.Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    def answer(result): (folder / "result.json").write_text(json.dumps({"result": result}))
    """
    script = folder / "process.py"
    script.write_text(textwrap.dedent(start) + textwrap.dedent(code))
    return [sys.executable, str(script)]


# One process


def test_a_task_gives_its_result(tmp_path: Path) -> None:
    assert run_isolated(a_process(tmp_path, "answer(task['x'] * 2)"), {"x": 21}, 60) == 42


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.abort()", "ended by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "ended by SIGSEGV"),
        ("print('no model', file=sys.stderr); sys.exit(3)", "exit status 3: no model"),
        ("raise RuntimeError('compilation failed')", "exit status 1: RuntimeError: compilation failed"),
    ],
)
def test_an_ended_process_is_a_result(code: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementFailedError, match=reason):
        run_isolated(a_process(tmp_path, code), {}, 60)


def test_a_process_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = f"""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
    time.sleep(600)
    """
    started = time.monotonic()
    with pytest.raises(MeasurementFailedError, match=r"no result within 1\.5 s"):
        run_isolated(a_process(tmp_path, code), {}, 1.5)
    assert time.monotonic() - started < 60
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_the_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = """
    import sys, time
    from pathlib import Path
    from nas.latency.measurement.isolated import serve_task
    serve_task(Path(sys.argv[1]), lambda task: time.sleep(600))
    """
    (tmp_path / "task.json").write_text("{}")
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as worker:
        assert worker.stdin is not None and worker.poll() is None
        worker.stdin.close()
        assert worker.wait(60) == 1


# Core ML's settings of the compute units


def a_statistic(median: float) -> dict[str, float | int]:
    return summarise([median] * 5).to_dict()


SETTINGS = f"""
statistics = {a_statistic(34.0)!r}
def measured(median):
    answer({{"statistics": statistics | {{"median_ms": median}}, "attempts": 2, "device": "Mac14,2, macOS 15.1"}})
if task["units"] == "CPU_AND_NE": os.abort()
if task["units"] == "CPU_AND_GPU": measured(34.0)
if task["units"] == "ALL": measured(51.0)
if task["units"] == "CPU_ONLY": time.sleep(600)
"""


def test_a_setting_that_fails_leaves_the_others(tmp_path: Path) -> None:
    record = measure_package(
        "coreml", tmp_path, Workload(512, 512, 17), command=a_process(tmp_path, SETTINGS), time_limit_s=2
    )
    assert record.ms_per_frame == pytest.approx(2.0)
    assert record.describe() == (
        "2.0 ms per frame at 512x512 x 17 frames, measured on Mac14,2, macOS 15.1, Core ML CPU_AND_GPU (spread 0%)"
    )
    assert set(record.details["units"]) == {"CPU_AND_GPU", "ALL"}
    assert record.details["failed"] == {
        "CPU_AND_NE": "the measuring process was ended by SIGABRT",
        "CPU_ONLY": "no result within 2 s",
    }


def test_a_decoder_that_no_setting_runs(tmp_path: Path) -> None:
    with pytest.raises(MeasurementFailedError) as failure:
        measure_package("coreml", tmp_path, Workload(8, 8, 1), command=a_process(tmp_path, "os.abort()"))
    assert all(f"{units}: the measuring process was ended by SIGABRT" in str(failure.value) for units in UNITS)


@pytest.mark.skipif(sys.platform == "darwin", reason="what is refused here works there")
@pytest.mark.parametrize("name", [CORE_ML, IPHONE])
def test_off_a_mac_one_line_says_what_to_do(name: str) -> None:
    with pytest.raises(UserError) as refusal:
        open_device(name)
    words = str(refusal.value)
    assert words.startswith(f"--device {name} needs a Mac, this is Linux: run python -m nas.latency serve")
    assert "--device http://MAC:8765" in words and "\n" not in words


def test_a_mac_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.mac_ver", lambda: ("14.3", ("", "", ""), "arm64"))
    with pytest.raises(UserError, match=r"needs macOS 14\.4 or newer, this is 14\.3"):
        check_platform(CORE_ML)
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    check_platform(CORE_ML)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="needs Xcode's devicectl and xcodebuild on the PATH"):
        check_platform(IPHONE)


# Statistics


def test_statistics_of_rounds() -> None:
    found = summarise([10.0] * 18 + [100.0, 1.0])
    assert (found.median_ms, found.trimmed_mean_ms, found.runs, found.steady) == (10.0, 10.0, 20, True)
    rising = summarise([10, 10, 10, 11, 11, 11, 13, 13, 13])
    assert rising.drift == pytest.approx(0.3) and not rising.steady
    assert rising.p90_ms == pytest.approx(13) and rising.spread == pytest.approx(3 / 11)
    assert summarise([5.0]).trimmed_mean_ms == 5.0


@pytest.mark.parametrize("samples", [[], [1.0, 0.0], [-1.0], [float("nan")]])
def test_timings_that_are_none(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one and positive"):
        summarise(samples)


def test_an_unsteady_set_is_timed_again() -> None:
    unsteady, better, steady = [10.0, 20.0, 30.0], [10.0, 12.0, 13.0], [10.0, 10.1, 10.2]
    sets = iter([unsteady, steady, better])
    found, attempts = time_until_steady(lambda: next(sets))
    assert (found.median_ms, attempts, found.steady) == (10.1, 2, True)
    never = iter([unsteady, better, unsteady, steady])
    found, attempts = time_until_steady(lambda: next(never))
    assert (found.median_ms, attempts, found.steady) == (12.0, MAX_ATTEMPTS, False)
