"""The continuous video tokenizer of Cosmos (arXiv 2501.03575)."""

from statistics import fmean
from typing import Any

import torch

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class CosmosTeacher(Teacher):
    """diffusers' AutoencoderKLCosmos: causal, the whole clip at once; its last 4x are an inverse Haar transform."""

    class_name = "AutoencoderKLCosmos"
    head = ("norm_out", "conv_out", "unpatch_embed")
    gpu_dtype = torch.bfloat16

    @property
    def spec(self) -> LatentSpec:
        """16 channels, 8x8x8. The published statistics are per channel and latent frame: their mean over frames."""
        config: Any = self.skeleton.config
        channels = config.latent_channels
        return LatentSpec(
            channels=channels,
            spatial=config.spatial_compression_ratio,
            temporal=config.temporal_compression_ratio,
            mean=_per_channel(config.latents_mean, channels),
            std=_per_channel(config.latents_std, channels),
        )


def _per_channel(values: list[float] | None, channels: int) -> tuple[float, ...]:
    if values is None:
        return ()
    if len(values) % channels:
        raise ValueError(f"{len(values)} statistics do not belong to {channels} channels")
    frames = len(values) // channels
    return tuple(fmean(values[channel * frames : (channel + 1) * frames]) for channel in range(channels))


register_release(
    Release(
        name="cosmos",
        repository="nvidia/Cosmos-1.0-Tokenizer-CV8x8x8",
        revision="",
        licence="NVIDIA Open Model",
        latents=LatentSpec(channels=16, spatial=8, temporal=8),
        decoder_parameters=62_738_560,
    ),
    CosmosTeacher,
)
