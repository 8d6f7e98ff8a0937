"""Runs the commands as processes, with a small teacher and small videos for them to work on.

`Shell.run` starts what a user types: `python -m nas.search ...`. That imports torch anew every time, which the many
rows of bad input cannot afford. `Shell.fork` has the same module run as `__main__` by a process that is forked off one
that has imported the libraries: its own folder, environment, streams, exit status, and it can be killed.
"""

import atexit
import fcntl
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nas.machine.torchvision_operators import import_torchvision
from tests.support.run_folders import list_files
from tests.support.videos import write_video

TIMEOUT = 280
"""Seconds after which a process is taken for hung; generous, since the machine may be busy."""

SERVER = """
import gc, json, os, runpy, sys
import nas.finalize.finish, nas.study.study
from diffusers import AutoencoderKLWan
from nas.core_ml.coremltools_package import import_coremltools
import_coremltools()
gc.freeze()
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        sys.argv = [order["module"], *order["arguments"]]
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        for number, path in enumerate([os.devnull, order["stdout"], order["stderr"]]):
            os.dup2(os.open(path, os.O_WRONLY if number else os.O_RDONLY), number)
        # The interpreter chose its buffering when it started, for what standard output was then.
        sys.stdout = open(1, "w", closefd=False)
        sys.path[0] = order["folder"]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        break
    print(pid, flush=True)
    _, status, used = os.wait4(pid, 0)
    print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)
"""


@dataclass(frozen=True)
class Finished:
    """How a process ended."""

    status: int
    """Exit status; negative: the signal that ended it."""
    stdout: str
    stderr: str
    cpu_seconds: float
    """What it computed, which unlike the time that passed does not depend on what else the machine does."""

    @property
    def error(self) -> str:
        """The one line on stderr; AssertionError if it is not exactly one that says it is an error."""
        assert self.stderr.startswith("error: ") and self.stderr.count("\n") == 1, self.stderr
        return self.stderr.strip()


@dataclass(frozen=True)
class Forked:
    """A process that `Shell.start_fork` started; `finish` has to be called before the next one."""

    pid: int
    server: "subprocess.Popen[str]"
    output: "tempfile.TemporaryDirectory[str]"
    watchdog: threading.Timer

    def finish(self) -> Finished:
        """Wait for its end."""
        assert self.server.stdout is not None
        status, cpu_seconds = self.server.stdout.readline().split()
        self.watchdog.cancel()
        stdout, stderr = (Path(self.output.name, name).read_text() for name in ("stdout", "stderr"))
        self.output.cleanup()
        return Finished(int(status), stdout, stderr, float(cpu_seconds))


@dataclass(frozen=True)
class Shell:
    """A folder and an environment to run commands in; nothing of them reaches beyond temporary folders or a network."""

    folder: Path
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of every process."""
        hidden = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "PYTHONWARNINGS", "HF_HUB_OFFLINE")
        kept = {name: value for name, value in os.environ.items() if name not in hidden and "proxy" not in name.lower()}
        nowhere = {"HF_HOME": str(self.cache / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9"}
        return kept | nowhere | {"NAS_CACHE": str(self.cache), "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}

    def run(self, module: str, *arguments: str) -> Finished:
        """`python -m MODULE ARGUMENTS`, to its end."""
        before = children_cpu_seconds()
        with self.start("-m", module, *arguments) as process:
            stdout, stderr = process.communicate(timeout=TIMEOUT)
        return Finished(process.returncode, stdout, stderr, children_cpu_seconds() - before)

    @contextmanager
    def start(self, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
        """`python ARGUMENTS`; killed at the end of the `with` if it has not ended."""
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def fork(self, module: str, *arguments: str, **devices: str) -> Finished:
        """As `run`, sooner."""
        return self.start_fork(module, *arguments, **devices).finish()

    def start_fork(self, module: str, *arguments: str, **devices: str) -> Forked:
        """As `start`, sooner; `stdout` and `stderr` may name a terminal or a pipe that takes that output instead."""
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        output = tempfile.TemporaryDirectory()
        streams = {name: Path(output.name, name) for name in ("stdout", "stderr")}
        for path in streams.values():
            path.touch()
        order = {"module": module, "arguments": arguments, "folder": str(self.folder), "environment": self.environment}
        order |= {name: str(path) for name, path in streams.items()} | devices
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        watchdog = threading.Timer(TIMEOUT, os.kill, (pid, signal.SIGKILL))
        watchdog.daemon = True
        watchdog.start()
        return Forked(pid, server, output, watchdog)


@dataclass(frozen=True)
class Inputs:
    """What the commands work on; made once for all tests."""

    folder: Path

    @property
    def teacher(self) -> Path:
        """Weights for `--teacher wan-tiny`, untrained and smaller than the embedded ones."""
        return self.folder / "teacher"

    @property
    def videos(self) -> Path:
        """One video to train on, one to score on, one to test on."""
        return self.folder / "videos"

    @property
    def cache(self) -> Path:
        """Targets that one test has computed serve the others."""
        return self.folder / "cache"

    def arguments(self, *more: str) -> list[str]:
        """A search that takes seconds; of an option that is given twice the last one counts.

        Two of the published designs that `turbo3d` holds are within the budget, so two trials leave none in the queue.
        """
        small = "--space turbo3d --latency-budget 0.2ms --resolution 64x64 --frames 5 --trials 2 --steps 2"
        return ["--teacher-weights", str(self.teacher), "--clips", str(self.videos), *small.split(), *more]


def refuse(shell: Shell, module: str, arguments: list[str], *expected: str, real: bool = False) -> Finished:
    """Run a command that has to end with one line that holds all of `expected`, and to leave everything as it was."""
    before = list_files(shell.folder)
    done = (shell.run if real else shell.fork)(module, *arguments)
    assert done.status == 2, f"{done.status}\n{done.stdout}\n{done.stderr}"
    missing = [text for text in expected if text not in done.error]
    assert not missing, f"{missing} not in {done.error}"
    assert done.stdout == ""
    assert list_files(shell.folder) == before
    return done


def make_inputs(factory: pytest.TempPathFactory) -> Inputs:
    """The inputs, made when they are first asked for; test processes side by side share them."""
    base = factory.getbasetemp()
    inputs = Inputs((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "command_inputs")
    with _first_time(inputs.folder) as first:
        if first:
            write_teacher(inputs.teacher)
            for number in range(3):
                write_video(inputs.videos / f"video{number}.mp4", 24, 64, 64, video=number)
    return inputs


def make_run(inputs: Inputs) -> Path:
    """A run folder as `Inputs.arguments` leaves it, made when it is first asked for; to be copied."""
    folder = inputs.folder / "made"
    with _first_time(folder) as first:
        if first:
            done = Shell(folder, inputs.cache).fork("nas.search", *inputs.arguments("--run", "R"))
            assert (done.status, done.stderr) == (0, ""), done.stderr
    return folder / "R"


def make_continued_run(inputs: Inputs) -> Path:
    """The run of `make_run` with a third trial, made when it is first asked for; to be read only."""
    folder = inputs.folder / "continued"
    made = make_run(inputs)
    with _first_time(folder) as first:
        if first:
            shutil.copytree(made, folder / "R")
            done = Shell(folder, inputs.cache).fork("nas.search", *inputs.arguments("--run", "R", "--trials", "3"))
            assert (done.status, done.stderr) == (0, ""), done.stderr
    return folder / "R"


@contextmanager
def _first_time(folder: Path) -> Iterator[bool]:
    """Whether the caller is to fill the folder; others wait until it has."""
    with folder.with_name(f"{folder.name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = lock.tell() == 0
        folder.mkdir(exist_ok=True)
        yield first
        lock.write("filled")


def write_teacher(folder: Path) -> None:
    """A diffusers folder with an untrained AutoencoderKLWan with the latents of Wan 2.1."""
    import_torchvision()
    from diffusers import AutoencoderKLWan

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKLWan(base_dim=4, num_res_blocks=1, dim_mult=[1, 2, 4, 4]).save_pretrained(folder)


def children_cpu_seconds() -> float:
    """Computed by the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_for_file(folder: Path, pattern: str, *, known: Container[Path] = ()) -> Path:
    """The first file that matches and is not known, as soon as it is there."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found = next((path for path in folder.glob(pattern) if path not in known), None)
        if found is not None:
            return found
        time.sleep(0.01)
    raise AssertionError(f"no {pattern} in {folder} after {TIMEOUT} s")


@functools.cache
def _server() -> "subprocess.Popen[str]":
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=tempfile.gettempdir(),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(_end, server)
    return server


def _end(server: "subprocess.Popen[str]") -> None:
    with server:
        server.kill()
