"""The process in which one measurement runs: `python -m nas.latency.measurement.worker FOLDER` (see `isolated.py`)."""

import resource
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.latency.measurement.isolated import run_isolated, serve_task
from nas.latency.record import LatencyRecord, MeasurementFailedError, Workload
from nas.machine.plugins import load_plugins

if TYPE_CHECKING:
    import torch

_MEMORY_SHARE = 0.75
"""Share of the machine's memory that one measurement may use."""

COMMAND = (sys.executable, "-m", "nas.latency.measurement.worker")


def measure_host(
    config: dict[str, Any],
    workload: Workload,
    device: "torch.device",
    time_limit_s: float,
    stop: threading.Event | None = None,
) -> LatencyRecord:
    """Latency of a decoder with this config (JSON primitives) on this machine, measured in a process of its own.

    Raises:
        MeasurementFailedError: it could not be run within `time_limit_s` seconds.
        StoppedError: `stop` was set meanwhile.
    """
    task = {"task": "host", "config": config, "workload": workload.to_dict(), "device": str(device)}
    return LatencyRecord.from_dict(run_isolated(COMMAND, task, time_limit_s, stop))


def _host(task: dict[str, Any]) -> dict[str, Any]:
    import platform

    import torch

    from nas.latency.measurement.host import describe_hardware, measure
    from nas.latency.measurement.host_memory import refuse_without_memory
    from search_spaces import Decoder, DecoderConfig, build_skeleton

    config, device = DecoderConfig.from_dict(task["config"]), torch.device(task["device"])
    workload = Workload(**task["workload"])
    try:
        refuse_without_memory(build_skeleton(config), config.latents, workload, device)
        if device.type == "cpu":
            _limit_memory(device)
        record = measure(Decoder(config), config.latents, workload, device=device)
    except (RuntimeError, MemoryError) as error:
        raise MeasurementFailedError(f"PyTorch cannot run it: {str(error).splitlines()[0]}") from error
    return replace(record, device=f"{platform.node()} ({describe_hardware(device)})").to_dict()


def _limit_memory(cpu: "torch.device") -> None:
    """Let a decoder that is too large fail here, before the system looks for a process to end.

    Not for a GPU: with CUDA a process reserves far more addresses than it uses memory.
    """
    from nas.machine.memory import memory_limit

    if sys.platform == "linux":
        there = memory_limit(cpu)
        resource.setrlimit(resource.RLIMIT_AS, (int(_MEMORY_SHARE * there),) * 2)


def _core_ml(task: dict[str, Any]) -> dict[str, Any]:
    from nas.latency.measurement.core_ml_runs import measure_package

    return measure_package(task)


def _iphone(task: dict[str, Any]) -> dict[str, Any]:
    from nas.latency.measurement.iphone_runs import measure_package

    return measure_package(task)


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"host": _host, "coreml": _core_ml, "iphone": _iphone}


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """The measurement that `task` names, of a decoder that may have parts of plugins."""
    load_plugins()
    return TASKS[task["task"]](task)


if __name__ == "__main__":
    serve_task(Path(sys.argv[1]), run_task)
