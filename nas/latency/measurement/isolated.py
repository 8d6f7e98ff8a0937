"""A measurement in a process of its own, with a time limit: whatever ends that process, this one goes on.

Core ML ends the process in which a compilation fails (SIGABRT, SIGKILL), and a decoder may need more memory than there
is. Both say something about the decoder, so both become a `MeasurementFailedError` with the reason.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.latency.record import MeasurementFailedError
from nas.machine.files import disk_errors, read_json, write_json
from nas.machine.temporary import temporary_folder
from nas.machine.threads import user_environment
from nas.terminal.errors import UserError

TASK, RESULT, LOG = "task.json", "result.json", "log.txt"

_DISK = "a measurement's temporary files cannot be written"

_POLL_S = 0.02
"""Seconds between two looks at the process: what a measurement takes longer than it has to."""


class StoppedError(Exception):
    """A measurement that was called off before it ended; nothing is known about the decoder."""


def run_isolated(
    command: Sequence[str], task: dict[str, Any], time_limit_s: float, stop: threading.Event | None = None
) -> Any:
    """What a process makes of a task.

    Args:
        command: started with the path of a folder as its last argument, where it reads the task and writes the result
            (`serve_task` does both). Its standard input ends when this process does.
        task: JSON primitives.
        time_limit_s: after that the process and all that it started are killed.
        stop: calls the measurement off when it is set, from another thread.

    Raises:
        StoppedError: `stop` was set; the process and all that it started are killed.
        MeasurementFailedError: it was killed, took too long or failed; the message says which.
        UserError: nothing is known about the decoder: something is missing that the user has to provide, or the disk
            of temporary files takes nothing.
    """
    with disk_errors(_DISK), temporary_folder(Path(tempfile.gettempdir())) as folder:
        write_json(folder / TASK, task)
        with (folder / LOG).open("w") as log:
            process = subprocess.Popen(
                [*command, str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=user_environment(),
            )
            try:
                status = _wait(process, time_limit_s, stop or threading.Event())
            finally:
                _kill(process)
        if status == os.EX_IOERR:
            raise UserError(f"{_DISK}: {_last_line(folder / LOG)}")
        if status != 0:
            raise MeasurementFailedError(_reason(status, folder / LOG))
        answer = read_json(folder / RESULT)
    if "user_error" in answer:
        raise UserError(answer["user_error"])
    if "error" in answer:
        raise MeasurementFailedError(answer["error"])
    return answer["result"]


def _wait(process: "subprocess.Popen[bytes]", time_limit_s: float, stop: threading.Event) -> int:
    """Exit status of a process, waited for until it ends, `stop` is set or the time is over."""
    deadline = time.monotonic() + time_limit_s
    while (status := process.poll()) is None:
        if stop.wait(_POLL_S):
            raise StoppedError("the measurement was called off")
        if time.monotonic() > deadline:
            raise MeasurementFailedError(f"no result within {time_limit_s:g} s")
    return status


def serve_task(folder: Path, work: Callable[[dict[str, Any]], Any]) -> None:
    """The other side: do the task in `folder` and write what it gives; ends at once if the starting process ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = {"result": work(read_json(folder / TASK))}
    except MeasurementFailedError as error:
        answer = {"error": str(error)}
    except UserError as error:
        answer = {"user_error": str(error)}
    try:
        write_json(folder / RESULT, answer)
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(os.EX_IOERR)


def _end_with_parent() -> None:
    # Unbuffered: a thread that waits inside of a buffered read makes the interpreter abort when it ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process that has not ended, and its children."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(status: int, log: Path) -> str:
    last = f": {_last_line(log)}" if _last_line(log) else ""
    if status < 0:
        return f"the measuring process was ended by {signal.Signals(-status).name}{last}"
    return f"the measuring process failed with exit status {status}{last}"


def _last_line(log: Path) -> str:
    """The last line that is not empty; "" if there is none."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
