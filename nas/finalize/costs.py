"""What a decoder costs: multiply-accumulates, latency here, latency as it is predicted for a phone."""

import torch
from rich.console import Console

from nas.finalize.job import Job
from nas.latency import LatencyRecord, list_operations, measure
from nas.latency.measurement.host import MIN_ROUNDS
from nas.machine.batches import DoesNotFitError, out_of_memory_as
from nas.machine.memory import memory_limit
from nas.terminal.console import progress, warn


def measured_latency(console: Console, job: Job, decoder: torch.nn.Module, what: str) -> LatencyRecord:
    """Latency of a decoder with weights on this machine."""
    with progress(console, "latency", what) as advance:
        # At full size on a CPU a decode takes many seconds: two of them then have to do.
        return measure(
            decoder,
            job.teacher.spec,
            job.workload,
            device=job.device,
            time_limit_s=2.0,
            on_round=lambda count: advance(count, max(count, MIN_ROUNDS)),
        )


def teacher_latency(console: Console, job: Job) -> LatencyRecord | None:
    """Latency of the teacher here; None, with a warning, where its decode does not fit into the device's memory.

    Whether it would is estimated, and may turn out otherwise.
    """
    load, there = job.workload, memory_limit(job.teacher.device)
    needed = job.teacher.memory(load.num_frames, load.height, load.width)
    if needed > there:
        size = f"{load.height}x{load.width} x {load.num_frames} frames"
        sizes = f"about {needed / 1e9:.1f} GB of memory, there are {there / 1e9:.1f} GB"
        warn(console, f"the teacher's latency is not measured: {size} need {sizes}")
        return None
    try:
        with out_of_memory_as(DoesNotFitError(f"{job.device.type} is out of memory")):
            return measured_latency(console, job, job.teacher.decoding(), "of the teacher, here")
    except DoesNotFitError as error:
        warn(console, f"the teacher's latency is not measured: {error}")
        return None


def macs_per_frame(job: Job, decoder: torch.nn.Module) -> float:
    """Multiply-accumulates of the timed decode per decoded frame."""
    load = job.workload
    shape = (1, *job.teacher.spec.latent_shape(load.num_frames, load.height, load.width))
    return sum(operation.macs for operation in list_operations(decoder, shape)) / load.num_frames
