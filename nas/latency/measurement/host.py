"""Latency measured on this machine with PyTorch: in float16 on a GPU, in float32 on the CPU.

On a CPU in the form in which `nas.decode` computes there too, see `nas.machine.fast_convolutions`.
"""

import copy
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from nas.latency.record import LatencyRecord, Workload
from nas.latency.stages import stage_modules, watch_stages
from nas.machine.device import choose_device
from nas.machine.fast_convolutions import fast_convolutions
from search_spaces import LatentSpec

MIN_ROUNDS, ENOUGH_ROUNDS, MAX_ROUNDS = 2, 3, 20
_VERY_LONG = 20
"""Time limits that a decode takes which is timed once."""

Clock = Callable[[], float]
"""A clock: seconds since some moment."""


def measure(
    decoder: nn.Module,
    spec: LatentSpec,
    workload: Workload,
    *,
    device: torch.device | None = None,
    time_limit_s: float = 10.0,
    clock: Clock = time.perf_counter,
    on_round: Callable[[int], None] | None = None,
) -> LatencyRecord:
    """Time one decode of random latents after another, and take the median.

    One decode warms up. Then rounds are timed until there are 3 and the time limit is reached, or 20. A decode that
    takes longer than the limit is timed twice, the first one included: what warms up is a small part of it. One that
    takes 20 times as long is timed once. The decoder is copied, not moved.

    Args:
        decoder: latents `(1, c, t, h, w)` -> frames `(1, 3, t', h', w')`, with real weights.
        spec: of its latents.
        workload: the decode.
        device: where it is decoded; default: the GPU if there is one, else the CPU.
        time_limit_s: seconds for the timed rounds.
        clock: what the CPU is timed with. A GPU is timed by the events of CUDA, or by the time that passes (Apple's).
        on_round: called with the number of timed rounds that are done.

    Raises:
        ValueError: the workload is not on the grid of the latents, or the decoder gives frames of another size.
    """
    if any(parameter.is_meta for parameter in decoder.parameters()):
        raise ValueError("a decoder on the meta device has no weights to run: build it on the CPU to measure it")
    device = choose_device() if device is None else device
    dtype = dtype_on(device)
    decoder = copy.deepcopy(decoder).to(device, dtype).eval()
    shape = (1, *spec.latent_shape(workload.num_frames, workload.height, workload.width))
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with torch.inference_mode(), fast_convolutions(device):
        rounds = _time_rounds(decoder, latents, workload, time_limit_s, clock, on_round or (lambda count: None))
    totals = np.array([sum(round_.values()) for round_ in rounds])
    median = float(np.median(totals))
    low, high = np.percentile(totals, [10, 90])
    decodes = f"median of {len(rounds)} decodes" if len(rounds) > 1 else "one decode"
    return LatencyRecord(
        ms_per_frame=median / workload.num_frames,
        kind="measured",
        device=describe_host(device),
        method=f"{decodes} in PyTorch {torch.__version__}{_clock_note(device, clock)}",
        height=workload.height,
        width=workload.width,
        num_frames=workload.num_frames,
        dtype=str(dtype).removeprefix("torch."),
        error=float(high - low) / median if len(rounds) > 1 else None,
        by_stage=_median_shares(rounds, median / workload.num_frames),
    )


def dtype_on(device: torch.device) -> torch.dtype:
    """Precision that is measured: float16 on a GPU, as on phones; float32 on the CPU, where float16 is slow."""
    return torch.float32 if device.type == "cpu" else torch.float16


def describe_host(device: torch.device) -> str:
    """ "this machine (x86_64 CPU, 2 threads)"."""
    return f"this machine ({describe_hardware(device)})"


def describe_hardware(device: torch.device) -> str:
    """The GPU's name, or the architecture of the CPU and the threads that PyTorch uses: "x86_64 CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{platform.machine()} GPU"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"


def _clock_note(device: torch.device, clock: Clock) -> str:
    return ", CPU time" if clock is time.process_time and device.type == "cpu" else ""


def _check_frames(frames: Tensor, workload: Workload) -> None:
    expected = (1, 3, workload.num_frames, workload.height, workload.width)
    if tuple(frames.shape) != expected:
        raise ValueError(f"the decoder must give frames of shape {expected} for its latents, got {tuple(frames.shape)}")


def _time_rounds(
    decoder: nn.Module,
    latents: Tensor,
    workload: Workload,
    time_limit_s: float,
    clock: Clock,
    on_round: Callable[[int], None],
) -> list[dict[str, float]]:
    """Milliseconds by stage of each round; a warm-up that is shorter than the limit is not among them."""
    started = time.perf_counter()
    rounds = [_time_stages(decoder, latents, workload, clock)]
    elapsed = time.perf_counter() - started
    if elapsed < time_limit_s:
        rounds.clear()
        started = time.perf_counter()
    on_round(len(rounds))
    if elapsed > _VERY_LONG * time_limit_s:
        return rounds
    while len(rounds) < MAX_ROUNDS:
        rounds.append(_time_stages(decoder, latents, workload, clock))
        on_round(len(rounds))
        elapsed = time.perf_counter() - started
        # A third round would take a very slow decoder far over the limit and say little more.
        enough = MIN_ROUNDS if elapsed > 2 * time_limit_s else ENOUGH_ROUNDS
        if elapsed >= time_limit_s and len(rounds) >= enough:
            break
    return rounds


def _time_stages(decoder: nn.Module, latents: Tensor, workload: Workload, clock: Clock) -> dict[str, float]:
    """Milliseconds by stage of one decode, in the order in which the stages first ran."""
    groups = stage_modules(decoder)
    stages, marks = [next(iter(groups))], [_mark(latents.device, clock)]

    def on_stage(name: str) -> None:
        if name != stages[-1]:
            stages.append(name)
            marks.append(_mark(latents.device, clock))

    with watch_stages(groups, on_stage):
        frames = decoder(latents)
    marks.append(_mark(latents.device, clock))
    _check_frames(frames, workload)
    if latents.device.type == "cuda":
        torch.cuda.synchronize()
    by_stage: dict[str, float] = {}
    for stage, start, end in zip(stages, marks, marks[1:], strict=False):
        by_stage[stage] = by_stage.get(stage, 0.0) + _milliseconds(start, end)
    return by_stage


def _mark(device: torch.device, clock: Clock) -> "float | torch.cuda.Event":
    """A moment, once everything before it is computed.

    With CUDA it is an event in the GPU's queue, so that marking stages does not make the GPU wait for the CPU.
    """
    if device.type == "cpu":
        return clock()
    if device.type == "mps":
        torch.mps.synchronize()
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _milliseconds(start: "float | torch.cuda.Event", end: "float | torch.cuda.Event") -> float:
    if isinstance(start, float) and isinstance(end, float):
        return 1000 * (end - start)
    assert not isinstance(start, float) and not isinstance(end, float)
    return float(start.elapsed_time(end))


def _median_shares(rounds: list[dict[str, float]], total: float) -> dict[str, float]:
    """The median of each stage, scaled so that they add up to `total`."""
    medians = {stage: float(np.median([round_[stage] for round_ in rounds])) for stage in rounds[0]}
    scale = total / sum(medians.values())
    return {stage: scale * median for stage, median in medians.items()}
