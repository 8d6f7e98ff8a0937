"""Wan's VAEs (arXiv 2503.20314), and the small embedded teacher of the same class and latent geometry as Wan 2.1's."""

import importlib.resources
from pathlib import Path
from typing import Any

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class WanTeacher(Teacher):
    """diffusers' AutoencoderKLWan: causal, decodes one latent frame at a time with caches of its own.

    It clamps its frames. Wan 2.2's unpatchifies them after its decoder, which counts for the compression.
    """

    class_name = "AutoencoderKLWan"
    head = ("norm_out", "conv_out")

    @property
    def spec(self) -> LatentSpec:
        """16 channels, 4x8x8 for Wan 2.1; the first latent frame is one frame."""
        config: Any = self.skeleton.config
        return LatentSpec(
            channels=config.z_dim,
            spatial=config.scale_factor_spatial,
            temporal=config.scale_factor_temporal,
            mean=tuple(config.latents_mean),
            std=tuple(config.latents_std),
        )


register_release(
    Release(
        name="wan",
        repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        revision="0fad780a534b6463e45facd96134c9f345acfa5b",
        licence="Apache-2.0",
        latents=LatentSpec(channels=16, spatial=8, temporal=4),
        decoder_parameters=73_295_331,
    ),
    WanTeacher,
)
register_release(
    Release(
        name="wan2.2",
        repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        revision="",
        licence="Apache-2.0",
        latents=LatentSpec(channels=48, spatial=16, temporal=4),
        decoder_parameters=555_049_228,
        config={
            "base_dim": 160,
            "decoder_base_dim": 256,
            "z_dim": 48,
            "is_residual": True,
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "scale_factor_spatial": 16,
        },
        note="base width 160 (decoder 256), 48 channels, residual, patches of 2; the class default is Wan 2.1's",
    ),
    WanTeacher,
)
register_release(
    Release(
        name="wan-tiny",
        repository="",
        revision="",
        licence="as this package",
        latents=LatentSpec(channels=16, spatial=8, temporal=4),
        decoder_parameters=1_550_739,
        config={"base_dim": 16, "num_res_blocks": 1},
        embedded=Path(str(importlib.resources.files("nas.assets"))) / "wan_tiny",
        note="base width 16, one residual block per stage",
    ),
    WanTeacher,
)
