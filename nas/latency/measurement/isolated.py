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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.latency.record import MeasurementFailedError
from nas.machine.files import read_json, write_json
from nas.terminal.errors import UserError

TASK, RESULT, LOG = "task.json", "result.json", "log.txt"


def run_isolated(command: Sequence[str], task: dict[str, Any], time_limit_s: float) -> Any:
    """What a process makes of a task.

    Args:
        command: started with the path of a folder as its last argument, where it reads the task and writes the result
            (`serve_task` does both). Its standard input ends when this process does.
        task: JSON primitives.
        time_limit_s: after that the process and all that it started are killed.

    Raises:
        MeasurementFailedError: it was killed, took too long or failed; the message says which.
        UserError: of the task itself: something is missing that the user has to provide.
    """
    with tempfile.TemporaryDirectory(prefix="nas-latency-") as name:
        folder = Path(name)
        write_json(folder / TASK, task)
        with (folder / LOG).open("w") as log:
            process = subprocess.Popen(
                [*command, name], stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(time_limit_s)
            except subprocess.TimeoutExpired as error:
                raise MeasurementFailedError(f"no result within {time_limit_s:g} s") from error
            finally:
                _kill(process)
        if status != 0:
            raise MeasurementFailedError(_reason(status, folder / LOG))
        answer = read_json(folder / RESULT)
    if "user_error" in answer:
        raise UserError(answer["user_error"])
    if "error" in answer:
        raise MeasurementFailedError(answer["error"])
    return answer["result"]


def serve_task(folder: Path, work: Callable[[dict[str, Any]], Any]) -> None:
    """The other side: do the task in `folder` and write what it gives; ends at once if the starting process ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = {"result": work(read_json(folder / TASK))}
    except MeasurementFailedError as error:
        answer = {"error": str(error)}
    except UserError as error:
        answer = {"user_error": str(error)}
    write_json(folder / RESULT, answer)


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
    lines = log.read_text(errors="replace").strip().splitlines()
    last = f": {lines[-1].strip()}" if lines else ""
    if status < 0:
        return f"the measuring process was ended by {signal.Signals(-status).name}{last}"
    return f"the measuring process failed with exit status {status}{last}"
