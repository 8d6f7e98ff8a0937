"""An agent's worker and connections: every wait has an end, whatever is stuck, full, silent or slow."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.latency import LatencyRecord, MeasurementFailedError, Workload
from nas.latency.agent import connections, worker
from nas.latency.agent.client import open_agent
from nas.latency.agent.queue import Queue
from nas.latency.agent.services import HostService
from nas.latency.measurement.isolated import StoppedError
from nas.terminal.errors import UserError
from search_spaces import PRESETS, Decoder, adapt
from tests.commands.test_bad_input import mounted
from tests.support.agents import QUICK, TOKEN, RunningAgent, config_json, running_agent
from tests.support.errors import refusal
from tests.support.fake_agents import RECORD, serving

COG = PRESETS["turbo_vaed_cog"]
WORKLOAD = Workload(16, 16, 1)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_AGENT_TOKEN", TOKEN)


def wait_until(is_so: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


# The worker


@dataclass(frozen=True)
class Scripted(HostService):
    """A host whose measurements go as a test says."""

    script: Callable[[threading.Event], None] = lambda stop: None
    asked: list[float] = field(default_factory=list)

    def measure(self, upload: Path, workload: Workload, stop: threading.Event) -> LatencyRecord:
        self.asked.append(time.monotonic())
        self.script(stop)
        return LatencyRecord.from_dict({**RECORD, **workload.to_dict()})


def client_error(address: str) -> str:
    device = open_agent(address)
    with torch.device("meta"):
        decoder = Decoder(QUICK)
    return refusal(lambda: device.latency(decoder, QUICK.latents, WORKLOAD))


def test_a_stuck_measurement_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_GRACE_S", 0.3)

    def hang(stop: threading.Event) -> None:
        if stop.wait(60):
            raise StoppedError

    started = time.monotonic()
    with serving(tmp_path, Scripted("a box", CPU, 0.2, script=hang)) as address:
        error = client_error(address)
        assert "is broken: the measurement of job" in error and "has not ended after" in error
        assert "is broken" in refusal(lambda: open_agent(address)), "nobody else is let in meanwhile"
    assert time.monotonic() - started < 30


TROUBLE: dict[str, Exception] = {
    "no phone": UserError("no iPhone is connected"),
    "a full disk": OSError(28, "No space left on device"),
}


@pytest.mark.parametrize("row", TROUBLE)
def test_trouble_is_no_fault_of_a_decoder(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RETRY_S", 0.3)
    ready = threading.Event()

    def fail(stop: threading.Event) -> None:
        if not ready.is_set():
            raise TROUBLE[row]

    with serving(tmp_path, Scripted("a box", CPU, 900, script=fail)) as address:
        assert str(TROUBLE[row]) in client_error(address)
        ready.set()
        # The job has stayed in the queue, and the agent has mended itself.
        wait_until(lambda: not Queue(tmp_path).waiting())
        with torch.device("meta"):
            decoder = Decoder(QUICK)
        wait_until(lambda: _opens(address))
        assert open_agent(address).latency(decoder, QUICK.latents, WORKLOAD).ms_per_frame == 2.0


def _opens(address: str) -> bool:
    try:
        open_agent(address)
    except UserError:
        return False
    return True


def test_an_unexpected_error_is_a_failed_job_and_the_next_is_measured(tmp_path: Path) -> None:
    def fail(stop: threading.Event) -> None:
        raise KeyError("an upload that was damaged")

    with serving(tmp_path, Scripted("a box", CPU, 900, script=fail)) as address:
        device = open_agent(address)
        with torch.device("meta"):
            decoder = Decoder(QUICK)
        for _ in range(2):
            with pytest.raises(MeasurementFailedError, match="an upload that was damaged"):
                device.latency(decoder, QUICK.latents, WORKLOAD)


def test_a_queue_that_is_damaged_while_it_is_used(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted("a box", CPU, 900)) as address:
        device = open_agent(address)
        (tmp_path / "queue.db").write_bytes(b"no database at all " * 99)
        wait_until(lambda: not _opens(address))
        assert "queue.db cannot be used: file is not a database" in refusal(lambda: open_agent(address))
        with torch.device("meta"):
            decoder = Decoder(QUICK)
        assert "file is not a database" in refusal(lambda: device.latency(decoder, QUICK.latents, WORKLOAD))


@pytest.mark.slow
def test_a_full_disk_ends_the_wait_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "200k"), running_agent(disk / "agent") as agent:
        with torch.device("meta"):
            decoder = Decoder(QUICK)
        device = open_agent(agent.address)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        error = refusal(lambda: device.latency(decoder, QUICK.latents, WORKLOAD))
        assert "No space left on device" in error or "disk is full" in error
        filler.unlink()
        wait_until(lambda: _opens(agent.address))
        assert device.latency(decoder, QUICK.latents, WORKLOAD).ms_per_frame > 0
        assert not list((disk / "agent" / "incoming").iterdir())


# Connections


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_agent(tmp_path_factory.mktemp("agent")) as running:
        yield running


def test_silent_connections_lock_nobody_out(agent: RunningAgent) -> None:
    silent = [connect(agent.address) for _ in range(70)]
    try:
        for number, each in enumerate(silent):
            if number % 2:
                each.sendall(b"GET /device HTTP/1.1\r\nHost: x\r\n")
        for _ in range(3):
            started = time.monotonic()
            assert agent.request("GET", "/device").status_code == 200
            assert time.monotonic() - started < 5
    finally:
        for each in silent:
            each.close()


@pytest.mark.parametrize("first", [b"", b"GET /device HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["never asks", "after a 401"])
def test_a_connection_that_drips_is_ended(first: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    with serving(tmp_path, Scripted("a box", CPU, 900)) as address, connect(address) as connection:
        connection.sendall(first)
        started = time.monotonic()
        ended = False
        while not ended and time.monotonic() - started < 20:
            time.sleep(0.1)
            try:
                connection.sendall(b"X")
                connection.settimeout(0.01)
                ended = first == b"" and connection.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                ended = True
        assert ended and time.monotonic() - started < 10


def test_an_upload_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted("a box", CPU, 900)) as address:
        head = f"POST /jobs?height=16&width=16&frames=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        with connect(address) as connection:
            connection.sendall(head.encode() + b"Content-Length: 1000\r\n\r\n{")
            wait_until(lambda: list((tmp_path / "incoming").iterdir()))
        wait_until(lambda: not list((tmp_path / "incoming").iterdir()))


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000, b"\r\n" * 999]
)
def test_bytes_that_are_no_request(agent: RunningAgent, data: bytes) -> None:
    with connect(agent.address) as connection:
        connection.sendall(data)
    assert agent.request("GET", "/device").status_code == 200


# The end


def test_sigterm_ends_the_agent_and_its_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    slow = {"height": 256, "width": 256, "frames": 17}
    with running_agent(tmp_path / "agent") as running:
        job = running.request("POST", "/jobs", params=slow, json=config_json(adapt(COG, COG.latents, 2))).json()["id"]
        wait_until(lambda: running.request("GET", f"/jobs/{job}").json()["state"] == "running")
        wait_until(lambda: list(temporary.glob(".nas-tmp-*/log.txt")))
        children = _children(running.process.pid)
        assert children
        # One is silent, one is in the middle of an upload.
        with connect(running.address), connect(running.address) as uploading:
            head = f"POST /jobs?height=16&width=16&frames=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            uploading.sendall(head.encode() + b"Content-Length: 1000\r\n\r\n{")
            started = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(20) == 128 + signal.SIGTERM
            assert time.monotonic() - started < 5
        assert not any(Path(f"/proc/{child}/cmdline").exists() for child in children)
        assert not list(temporary.iterdir()) and not list((tmp_path / "agent" / "incoming").iterdir())
    assert Queue(tmp_path / "agent").waiting() == [job], "it is measured when the agent is started again"


def _children(pid: int) -> list[int]:
    if shutil.which("ps") is None:
        pytest.skip("ps is not here")
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]
