"""Measurements on this machine run on the device that they are handed, and say which it was."""

import platform
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas.latency import LatencyRecord, MeasurementFailedError, Workload, measure, open_device
from nas.latency.__main__ import _host_in_turns
from nas.latency.agent.services import HostService, open_service
from nas.latency.devices import HostDevice
from nas.latency.measurement import host
from nas.latency.measurement.host import describe_hardware, describe_host, dtype_on
from nas.latency.measurement.worker import measure_host
from nas.machine import fast_convolutions
from search_spaces import Decoder
from tests.support.agents import QUICK, config_json

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
SMALL = Workload(16, 16, 1)


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says that it has a GPU: what asks it instead of using the device it is handed fails here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (2, "2 threads")])
def test_a_cpu_is_described_by_its_architecture_and_threads(
    threads: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert describe_host(CPU) == f"this machine ({platform.machine()} CPU, {words})"


def test_a_gpu_is_described_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")
    assert describe_host(torch.device("cuda:1")) == "this machine (name of cuda:1)"
    assert describe_hardware(MPS) == f"{platform.machine()} GPU"


def test_a_gpu_is_measured_in_float16() -> None:
    assert [dtype_on(device) for device in (CPU, CUDA, MPS)] == [torch.float32, torch.float16, torch.float16]


@pytest.mark.usefixtures("with_gpu")
def test_a_measurement_runs_where_it_is_told() -> None:
    record = measure(Decoder(QUICK), QUICK.latents, SMALL, device=CPU, time_limit_s=0.1)
    assert (record.device, record.dtype) == (describe_host(CPU), "float32")
    device = HostDevice(CPU, time_limit_s=0.1)
    assert device.latency(Decoder(QUICK), QUICK.latents, SMALL).device == describe_host(CPU)
    assert device.describe(SMALL) == f"at 16x16 x 1 frames, measured on {describe_host(CPU)}"


@pytest.mark.usefixtures("with_gpu")
def test_the_device_is_chosen_when_one_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    opened = open_device("host")
    assert isinstance(opened, HostDevice) and opened.device == CUDA
    assert opened.describe(SMALL).endswith("measured on this machine (a GPU)")
    service = open_service("host", 10)
    assert isinstance(service, HostService) and service.device == CUDA
    assert service.description == f"{platform.node()} (a GPU)"


def test_without_a_device_a_measurement_chooses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "choose_device", lambda: CPU)
    assert measure(Decoder(QUICK), QUICK.latents, SMALL, time_limit_s=0.1).device == describe_host(CPU)


def test_an_agent_hands_its_device_to_the_process_that_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[dict[str, Any]] = []

    def run_isolated(command: object, task: dict[str, Any], time_limit_s: float, stop: object) -> dict[str, Any]:
        tasks.append(task)
        return LatencyRecord(1.0, "measured", "x", "x", 16, 16, 1, "float16", 0.0, {"x": 1.0}).to_dict()

    monkeypatch.setattr("nas.latency.measurement.worker.run_isolated", run_isolated)
    measure_host(config_json(), SMALL, CUDA, 10)
    assert tasks[0]["device"] == "cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU would run it")
def test_the_process_that_measures_uses_the_device_of_its_task() -> None:
    with pytest.raises(MeasurementFailedError, match=r"CUDA|NVIDIA"):
        measure_host(config_json(), SMALL, CUDA, 200)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.1, range(21)), (1.0, range(4)), (1.5, range(4)), (10.0, range(1, 3))],
    ids=["20 at most", "to the limit", "3 at least", "a slow one twice, the warm-up included"],
)
def test_how_many_decodes_are_timed(seconds: float, told: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a decode moves on by so many seconds, with a limit of 2.5."""
    reads, rounds = count(), list[int]()
    monkeypatch.setattr(host, "time", SimpleNamespace(perf_counter=lambda: seconds * next(reads), process_time=None))
    monkeypatch.setattr(host, "_time_stages", lambda *_: {"stem": 1.0, "head": 3.0})
    record = measure(
        Decoder(QUICK),
        QUICK.latents,
        SMALL,
        device=CPU,
        time_limit_s=2.5,
        clock=time.perf_counter,
        on_round=rounds.append,
    )
    assert rounds == list(told)
    assert (record.ms_per_frame, record.by_stage, record.error) == (4.0, {"stem": 1.0, "head": 3.0}, 0.0)
    assert record.method.startswith(f"median of {len(told) - (told[0] == 0)} ")


def test_a_very_slow_decode_is_timed_once_and_its_spread_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count()
    monkeypatch.setattr(host, "time", SimpleNamespace(perf_counter=lambda: 60.0 * next(reads), process_time=None))
    monkeypatch.setattr(host, "_time_stages", lambda *_: {"stem": 1.0, "head": 3.0})
    record = measure(Decoder(QUICK), QUICK.latents, SMALL, device=CPU, time_limit_s=2.5, clock=time.perf_counter)
    assert (record.ms_per_frame, record.error) == (4.0, None)
    assert record.method.startswith("one decode in PyTorch") and record.describe().endswith(describe_host(CPU))
    assert LatencyRecord.from_dict(record.to_dict()) == record


def test_a_cpu_is_timed_in_the_form_in_which_decode_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    conv3d = torch.nn.functional.conv3d

    def note(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(x.shape)
        return conv3d(x, *rest)

    monkeypatch.setattr(fast_convolutions, "_conv3d", note)
    measure(Decoder(QUICK), QUICK.latents, SMALL, device=CPU, time_limit_s=0.0)
    assert seen


def test_apples_gpu_is_waited_for_and_timed_by_the_time_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(time.perf_counter()))
    mark = host._mark(MPS, lambda: pytest.fail("a GPU has another clock"))
    assert isinstance(mark, float) and len(waited) == 1 and waited[0] <= mark <= time.perf_counter()


@pytest.mark.parametrize(
    ("device", "threads", "clock"),
    [(CPU, 1, time.process_time), (CPU, 2, time.perf_counter), (CUDA, 1, time.perf_counter)],
)
def test_one_thread_is_calibrated_by_its_cpu_time(
    device: torch.device, threads: int, clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("nas.machine.device.choose_device", lambda: device)
    opened = _host_in_turns()
    assert (opened.device, opened.clock, opened.time_limit_s) == (device, clock, 0.5)
