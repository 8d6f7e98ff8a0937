"""Who trains: jobs, which are pieces of distillations, and the pools that run them side by side."""

import os
from typing import TYPE_CHECKING

from nas.workers.pool import InlinePool, Pool
from nas.workers.processes import ProcessPool

if TYPE_CHECKING:
    import torch


def make_pool(device: "torch.device", workers: int | None) -> Pool:
    """The pool of a search on this machine.

    Args:
        device: where candidates are trained.
        workers: number of processes; None for one for each core of a CPU, and for this process alone on a GPU.
    """
    if workers is None and device.type != "cpu":
        return InlinePool()
    return ProcessPool(workers or usable_cores())


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
