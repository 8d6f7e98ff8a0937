"""The process in which one measurement runs: `python -m nas.latency.measurement.worker FOLDER` (see `isolated.py`)."""

import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.latency.measurement.isolated import run_isolated, serve_task
from nas.latency.record import LatencyRecord, MeasurementFailedError, Workload
from nas.machine.plugins import load_plugins

_MEMORY_SHARE = 0.75
"""Of the memory that there is, for one measurement."""

COMMAND = (sys.executable, "-m", "nas.latency.measurement.worker")


def measure_host(config: dict[str, Any], workload: Workload, time_limit_s: float) -> LatencyRecord:
    """A decoder of this architecture on this machine, in a process of its own.

    Raises:
        MeasurementFailedError: it could not be run.
    """
    task = {"task": "host", "config": config, "workload": workload.to_dict()}
    return LatencyRecord.from_dict(run_isolated(COMMAND, task, time_limit_s))


def _host(task: dict[str, Any]) -> dict[str, Any]:
    import platform

    from nas.latency.measurement.host import describe_hardware, measure
    from search_spaces import Decoder, DecoderConfig

    config = DecoderConfig.from_dict(task["config"])
    _limit_memory()
    try:
        record = measure(Decoder(config), config.latents, Workload(**task["workload"]))
    except (RuntimeError, MemoryError) as error:
        raise MeasurementFailedError(f"PyTorch cannot run it: {str(error).splitlines()[0]}") from error
    return replace(record, device=f"{platform.node()} ({describe_hardware()})").to_dict()


def _limit_memory() -> None:
    """Let a decoder that is too large fail here, before the system looks for a process to end."""
    import torch

    from nas.machine.memory import memory_limit

    # With CUDA a process reserves far more addresses than it uses memory.
    if sys.platform == "linux" and not torch.cuda.is_available():
        there = memory_limit(torch.device("cpu"))
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
