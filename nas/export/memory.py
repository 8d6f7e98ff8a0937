"""How much memory an export takes, worked out before it begins."""

import copy

import torch
from torch import Tensor

from nas.export.functions import DRAWS
from nas.export.settings import ExportSettings
from nas.machine.memory import memory_limit, peak_bytes
from search_spaces import Decoder

_AT_ONCE = 3
"""Decodes that the proof holds at once: in float32, rounded, and what an operation makes beside its result."""


def export_bytes(decoder: Decoder, settings: ExportSettings) -> int:
    """Most bytes of memory that converting and proving take, about.

    Raises:
        ValueError: the size is not on the latents' grid, or the decoder does not stream.
    """
    skeleton = copy.deepcopy(decoder).to("meta")
    spec = decoder.config.latents
    latents = torch.empty(1, *spec.latent_shape(settings.num_frames, settings.height, settings.width), device="meta")

    def run() -> Tensor:
        if not settings.streaming:
            frames: Tensor = skeleton(latents)
            return frames
        _, state = skeleton.stream(latents, None)
        frames, _ = skeleton.stream(latents, state)
        return frames

    kept: list[int] = []
    peak = peak_bytes(lambda: kept.append(run().nbytes))
    return _AT_ONCE * peak + DRAWS * kept[0]


def missing_memory(decoder: Decoder, settings: ExportSettings) -> str:
    """Why an export does not fit into this machine's memory; empty if it does.

    Raises:
        ValueError: as `export_bytes`.
    """
    needed, there = export_bytes(decoder, settings), memory_limit(torch.device("cpu"))
    if needed <= there:
        return ""
    size = f"{settings.num_frames} frames at {settings.height}x{settings.width}"
    return f"{size} need about {needed / 1e9:.1f} GB of memory to be converted and proven, there are {there / 1e9:.1f}"
