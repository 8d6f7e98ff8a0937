"""Decodes that are not begun on this machine, because they would not fit into its memory."""

import copy

import torch
from torch import nn

from nas.latency.measurement.host import dtype_on
from nas.latency.record import MeasurementFailedError, Workload
from nas.machine.memory import memory_limit, peak_bytes
from search_spaces import LatentSpec


def refuse_without_memory(decoder: nn.Module, spec: LatentSpec, workload: Workload, device: torch.device) -> None:
    """Work out what a decode needs, without computing anything.

    Args:
        decoder: latents `(1, c, t, h, w)` -> frames; may be on the meta device.
        spec: of its latents.
        workload: the decode.
        device: where it would be decoded.

    Raises:
        MeasurementFailedError: it needs more memory than the device has.
        ValueError: the workload is not on the grid of the latents.
    """
    needed, there = decode_bytes(decoder, spec, workload, dtype_on(device)), memory_limit(device)
    if needed > there:
        raise MeasurementFailedError(
            f"a decode of {workload.describe()} needs about {needed / 1e9:.1f} GB of memory, "
            f"there are {there / 1e9:.1f} GB on {device.type}"
        )


def decode_bytes(decoder: nn.Module, spec: LatentSpec, workload: Workload, dtype: torch.dtype) -> int:
    """Bytes of one decode in this precision: weights, latents, and the most that the operations hold at one time."""
    on_meta = copy.deepcopy(decoder).to("meta", dtype).eval()
    shape = (1, *spec.latent_shape(workload.num_frames, workload.height, workload.width))
    latents = torch.empty(shape, dtype=dtype, device="meta")
    weights = sum(each.nbytes for each in (*on_meta.parameters(), *on_meta.buffers()))
    return weights + latents.nbytes + peak_bytes(lambda: on_meta(latents))
