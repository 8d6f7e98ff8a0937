"""Where the output goes: into a pipe that is closed, onto a terminal."""

import fcntl
import os
import re
import shutil
import struct
import termios
import threading

from tests.support.commands import Inputs, Shell, make_run


def test_reader_that_stops_reading(shell: Shell, inputs: Inputs) -> None:
    """As `| head -1` does: the status is that of a program that SIGPIPE ends. More lines follow a third training."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    pipe = shell.folder / "pipe"
    os.mkfifo(pipe)
    process = shell.start_fork("nas.search", *inputs.arguments("--run", "R", "--trials", "3"), stdout=str(pipe))
    with pipe.open() as reader:
        assert reader.readline().startswith("teacher   wan-tiny")
    done = process.finish()
    assert (done.status, done.stderr) == (141, "")


def test_terminal_shows_a_live_table(shell: Shell, inputs: Inputs) -> None:
    shutil.copytree(make_run(inputs), shell.folder / "R")
    text = run_in_terminal(shell, "nas.search", *inputs.arguments("--run", "R", "--trials", "3"), width=100)
    assert "Traceback" not in text
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    line = r"of 3 trained   training #\d+ \(\d/2 steps\)"
    assert re.search(line, plain), "the line under the table lives"
    rows = [line for line in plain.splitlines() if re.match(r" +\d+  ", line)]
    assert len(rows) >= 3 and all(len(row.rstrip()) <= 100 for row in rows)
    assert re.search(r"#  decoder +ms/frame +params +dB vs teacher", plain)
    assert "python -m nas.finalize R" in plain
    assert text.rstrip().endswith("python -m nas.finalize R") or "\x1b[?25h" in text, "the cursor is back"


def run_in_terminal(shell: Shell, module: str, *arguments: str, width: int) -> str:
    """All that a command writes to a terminal of this width."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    written: list[bytes] = []

    def read() -> None:
        while chunk := os.read(master, 65536):
            written.append(chunk)
            if chunk.endswith(b"\0"):
                return

    reader = threading.Thread(target=read)
    reader.start()
    done = shell.fork(module, *arguments, stdout=os.ttyname(slave), stderr=os.ttyname(slave))
    os.write(slave, b"\0")
    reader.join()
    os.close(slave)
    os.close(master)
    assert done.status == 0, b"".join(written)
    return b"".join(written).decode().rstrip("\0")
