"""A pool of processes on this machine, one thread each on a CPU.

Threads that wait for each other spin: beside other work one process of two threads is tens of times slower than two
processes of one thread. A process that is killed is started again, and its job goes on from its last checkpoint.
"""

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from nas.workers.pool import Result, WorkerDiedError

_ATTEMPTS = 3
"""How often a job is begun whose process is killed."""


class ProcessPool:
    """Runs each job in one of some processes, which are started when they are needed.

    Args:
        slots: number of processes.
        niceness: what is added to their niceness.
    """

    def __init__(self, slots: int, niceness: int = 0) -> None:
        self.slots = slots
        self._niceness = niceness
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._slot = threading.local()
        self._lock = threading.Lock()
        self._processes: set[SpawnProcess] = set()
        self._closed = False

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run a job as soon as a process is free."""
        return self._threads.submit(self._run, work)

    def get_ready(self) -> None:
        """Start the processes, and let each import what distillations need."""
        for _ in range(self.slots):
            self.submit(_import_distillation)

    def close(self) -> None:
        """Kill the processes; jobs that run end with WorkerDiedError, and those that wait are not begun."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def process_ids(self) -> list[int]:
        """Numbers of the processes that run."""
        with self._lock:
            return [process.pid for process in self._processes if process.pid is not None]

    def _run(self, work: Callable[[], Result]) -> Result:
        for _ in range(_ATTEMPTS):
            connection = self._connection()
            try:
                connection.send(work)
                failed, value = connection.recv()
            except (EOFError, OSError):
                self._slot.connection = None
                continue
            if failed:
                raise value
            result: Result = value
            return result
        raise WorkerDiedError(f"its process was killed {_ATTEMPTS} times (does it run out of memory?)")

    def _connection(self) -> Connection:
        """To the process of this slot, which is started if there is none."""
        if getattr(self._slot, "connection", None) is None:
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._niceness), daemon=True)
            with self._lock:
                if self._closed:
                    raise WorkerDiedError("the pool is closed")
                _leave_ctrl_c_to_the_main_thread()
                process.start()
                self._processes = {each for each in self._processes if each.is_alive()} | {process}
            theirs.close()
            self._slot.connection = ours
        connection: Connection = self._slot.connection
        return connection


def _import_distillation() -> None:
    """A job that leaves its process ready to train."""
    importlib.import_module("nas.distillation.distill")


def _leave_ctrl_c_to_the_main_thread() -> None:
    """Of this process: those that this thread starts inherit that they are not interrupted, from their first moment."""
    resource_tracker.ensure_running()  # else multiprocessing does it now, and lets SIGINT through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _serve(connection: Connection, niceness: int) -> None:
    """Run jobs until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(niceness)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            work = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(work))


def _attempt(work: Callable[[], Any]) -> tuple[bool, Any]:
    """Whether a job failed, and its result or what it raised."""
    try:
        return False, work()
    except Exception as error:  # handed on to whoever asks for the result
        return True, error


def _end_with_parent() -> None:
    """Nobody waits for the result of a job whose search was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
