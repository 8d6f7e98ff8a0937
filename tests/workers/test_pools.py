"""Pools: what a job gives comes back, whatever happens to the process that it runs in."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import closing
from pathlib import Path

import pytest

from nas.terminal.errors import UserError
from nas.workers.pool import InlinePool, WorkerDiedError
from nas.workers.processes import ProcessPool
from tests.support.commands import wait_for_file
from tests.support.small_jobs import Describe, KillItself, Refuse, WaitAndWrite


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    with closing(ProcessPool(2)) as pool:
        yield pool


def test_jobs_run_side_by_side_on_one_thread_each(pool: ProcessPool, tmp_path: Path) -> None:
    futures = [pool.submit(WaitAndWrite(tmp_path, 0.5)) for _ in range(2)] + [pool.submit(Describe())]
    wait(futures)
    assert len(list(tmp_path.glob("begun-*"))) == 2, "two processes"
    process, threads = futures[2].result().curve[0]
    assert process != os.getpid() and threads == 1
    assert process in pool.process_ids


def test_the_job_of_a_killed_process_is_run_again(pool: ProcessPool, tmp_path: Path) -> None:
    assert pool.submit(KillItself(tmp_path, times=2)).result().curve == ((2, 1.0),)


def test_a_job_whose_process_is_killed_again_and_again_is_given_up(pool: ProcessPool, tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError, match="killed 3 times"):
        pool.submit(KillItself(tmp_path, times=9)).result()
    assert len(list(tmp_path.iterdir())) == 3
    assert pool.submit(Describe()).result().curve


def test_processes_that_are_ready_run_jobs_and_leave_ctrl_c_to_who_started_them(tmp_path: Path) -> None:
    with closing(ProcessPool(2)) as pool:
        pool.get_ready()
        deadline = time.monotonic() + 60
        while len(pool.process_ids) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        for process in pool.process_ids:
            os.kill(process, signal.SIGINT)  # before they have imported anything
        assert pool.submit(Describe()).result().curve[0][0] in pool.process_ids
        assert len(pool.process_ids) == 2


def test_what_a_job_raises_is_raised_where_it_is_asked_for(pool: ProcessPool) -> None:
    for each in (pool, InlinePool()):
        with pytest.raises(UserError, match="the checkpoint is damaged"):
            each.submit(Refuse()).result()


def test_closing_stops_what_runs_and_what_waits(tmp_path: Path) -> None:
    pool = ProcessPool(1)
    running, waiting = pool.submit(WaitAndWrite(tmp_path, 60)), pool.submit(Describe())
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("begun-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    pool.close()
    assert waiting.cancelled()
    with pytest.raises(WorkerDiedError):
        running.result()
    assert not (tmp_path / "ended").exists()


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from nas.workers.processes import ProcessPool
from tests.support.small_jobs import WaitAndWrite
if __name__ == "__main__":
    pool = ProcessPool(1)
    pool.submit(WaitAndWrite(Path({str(tmp_path)!r}), 60)).result()
"""
    path = tmp_path / "search.py"
    path.write_text(script)
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, str(path)], env={**os.environ, "PYTHONPATH": str(root)}, cwd=root)
    begun = wait_for_file(tmp_path, "begun-*")
    process.kill()
    process.wait()
    worker = int(begun.name.removeprefix("begun-"))
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
