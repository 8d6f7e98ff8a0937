"""Who trains: jobs, which are pieces of distillations, and the pools that run them side by side."""

from typing import TYPE_CHECKING

from nas.machine.threads import usable_cores
from nas.workers.pool import InlinePool, Pool
from nas.workers.processes import ProcessPool

if TYPE_CHECKING:
    import torch


def make_pool(device: "torch.device", workers: int | None, cluster: str | None = None) -> "tuple[Pool, torch.device]":
    """The pool of a search, and where it trains.

    Args:
        device: where candidates are trained on this machine.
        workers: jobs side by side; None for one for each core of a CPU, for this process alone on a GPU, and for as
            many as a cluster has room for.
        cluster: address of a Ray cluster; None: this machine.

    Raises:
        UserError: there is no such cluster.
    """
    if cluster is not None:
        import torch

        from nas.workers.ray_pool import RayPool

        far = RayPool(cluster, workers)
        return far, torch.device(far.device)
    if workers is None and device.type != "cpu":
        return InlinePool(), device
    return ProcessPool(workers or usable_cores()), device
