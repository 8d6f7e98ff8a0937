"""CogVideoX's VAE (arXiv 2408.06072)."""

from typing import Any

import torch

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class CogVideoXTeacher(Teacher):
    """diffusers' AutoencoderKLCogVideoX: two latent frames at a time, the past handed from piece to piece.

    An odd number of latent frames begins with a piece of three, the first of which becomes a single frame; an even
    number does not. Its convolutions look back only, its norms take in the whole piece.
    """

    class_name = "AutoencoderKLCogVideoX"
    cached = frozenset({"mid_block", "up_blocks", "norm_out", "conv_out"})
    gpu_dtype = torch.bfloat16

    @property
    def spec(self) -> LatentSpec:
        """16 channels, 4x8x8; the pipeline multiplies latents by `scaling_factor` to bring them to unit scale."""
        config: Any = self.skeleton.config
        return LatentSpec(
            channels=config.latent_channels,
            spatial=2 ** (len(config.block_out_channels) - 1),
            temporal=int(config.temporal_compression_ratio),
            frame_rule="leading_if_odd",
            std=(1 / config.scaling_factor,) * config.latent_channels,
        )


register_release(
    Release(
        name="cogvideox",
        repository="zai-org/CogVideoX-5b",
        revision="",
        licence="CogVideoX",
        latents=LatentSpec(channels=16, spatial=8, temporal=4, frame_rule="leading_if_odd"),
        decoder_parameters=123_368_451,
        config={"scaling_factor": 0.7},
        note="scaling factor 0.7; the class default, 1.15258426, is the 2B model's",
    ),
    CogVideoXTeacher,
)
