"""A search with three workers that is killed at random moments: now the search, now one of its workers.

Whatever was killed, the study ends complete: as many candidates are trained as were asked for, none of them twice, none
is in progress, the best is within the budget, and every file is whole.
"""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from nas.study.outcomes import best_outcomes, read_outcomes
from nas.study.storage import storage_url
from nas.study.study import load_study
from tests.commands.test_kill import check_files_are_whole, check_search_is_complete
from tests.support.commands import Inputs, Shell, make_run

BUDGET_MS = 0.2
"""That of `Inputs.arguments`."""


def children(process: int) -> list[int]:
    """Processes that any of its threads has started and that run."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, file.read_text().split())
    return found


def is_worker(process: int) -> bool:
    """Whether it trains, rather than to keep account for Python of what is to be cleaned up."""
    try:
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_workers(process: int) -> list[int]:
    """Those of a search, of which a busy machine makes none for a while; none if it ends before."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and Path(f"/proc/{process}").exists():
        found = [each for each in children(process) if is_worker(each)]
        if found:
            return found
        time.sleep(0.05)
    return []


def kill_points(shell: Shell, inputs: Inputs, points: int, seed: int) -> int:
    """Kill a search so often, then let it end; returns how many of those killed were workers."""
    moments, workers, point = random.Random(seed), 0, 0
    folder = shell.folder / "R"
    # More to train with every kill: the search never ends before the next one.
    arguments = inputs.arguments("--run", "R", "--steps", "6", "--workers", "3", "--time-limit", "2h")
    while point < points:
        process = shell.start_fork("nas.search", *arguments, "--trials", str(4 + point))
        began = time.monotonic()
        while point < points and not (folder / "config.json").exists() and time.monotonic() - began < 60:
            time.sleep(0.01)
        while point < points:
            time.sleep(moments.uniform(0, 4))
            victims = [process.pid]
            if moments.random() < 0.5:
                victims = wait_for_workers(process.pid) or victims
            victim = moments.choice(victims)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            point += 1
            workers += victim != process.pid
            if victim == process.pid or not Path(f"/proc/{process.pid}").exists():
                break
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        done = process.finish()
        assert done.status in (0, -signal.SIGKILL) and done.stderr == "", done.stderr
        check_files_are_whole(shell.folder)
    for _ in range(4):  # on a busy machine the end takes longer than a test's processes may: one more kill
        done = shell.fork("nas.search", *arguments, "--trials", str(4 + points))
        if done.status != -signal.SIGKILL:
            break
    assert (done.status, done.stderr) == (0, "")
    check_search_is_complete(folder, trained=4 + points)
    best = best_outcomes(read_outcomes(load_study(storage_url(folder / "study.db"))))[0]
    assert best.latency.ms_per_frame <= BUDGET_MS
    assert not list(folder.glob("training/*")), "a checkpoint of a candidate that has ended"
    return workers


def test_killed_at_two_points(shell: Shell, inputs: Inputs) -> None:
    make_run(inputs)  # whose targets serve this one
    kill_points(shell, inputs, points=2, seed=1)


@pytest.mark.slow
def test_killed_at_twenty_points(shell: Shell, inputs: Inputs) -> None:
    make_run(inputs)
    workers = kill_points(shell, inputs, points=20, seed=0)
    assert 0 < workers < 20
