"""Processes that train and measure on one machine, as they are told to."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PROGRAM = """
import sys
from nas.machine.quiet import measuring, training
with {"train": training, "measure": measuring}[sys.argv[1]]():
    print("in", flush=True)
    sys.stdin.read()
"""


class Worker:
    """A process that trains or measures until it is told to stop."""

    def __init__(self, what: str, folder: Path) -> None:
        self._output = folder / f"{time.monotonic_ns()}"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, what], stdin=subprocess.PIPE, stdout=output, text=True
            )

    def is_in(self) -> bool:
        return self._output.read_text() == "in\n"

    def wait_until_in(self) -> None:
        deadline = time.monotonic() + 60
        while not self.is_in():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.communicate()


@contextmanager
def start(what: str, folder: Path) -> Iterator[Worker]:
    worker = Worker(what, folder)
    with worker.process:
        try:
            yield worker
        finally:
            worker.process.kill()


def is_waiting(worker: Worker) -> bool:
    """Whether it has come to a lock and does not get it."""
    path = Path(f"/proc/{worker.process.pid}/wchan")
    deadline = time.monotonic() + 60
    while "lock_inode_wait" not in path.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not worker.is_in()


def test_who_measures_is_alone_and_is_not_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with ExitStack() as stack:
        one, other = (stack.enter_context(start("train", tmp_path)) for _ in range(2))
        one.wait_until_in()
        other.wait_until_in()
        measure = stack.enter_context(start("measure", tmp_path))
        assert is_waiting(measure)
        late = stack.enter_context(start("train", tmp_path))
        assert is_waiting(late)
        one.stop()
        assert is_waiting(measure)
        other.process.kill()
        measure.wait_until_in()
        assert is_waiting(late)
        measure.stop()
        late.wait_until_in()
