"""Mochi 1's VAE (Genmo)."""

from typing import Any

from torch import Tensor

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class MochiTeacher(Teacher):
    """diffusers' AutoencoderKLMochi: the whole clip at once, 6x in time.

    All latent frames are upsampled alike; only at the end the first five frames are dropped.
    """

    class_name = "AutoencoderKLMochi"
    head = ("block_out", "nonlinearity", "proj_out")
    cached = frozenset({"block_in", "up_blocks", "block_out"})

    @property
    def spec(self) -> LatentSpec:
        """12 channels, 6x8x8."""
        config: Any = self.skeleton.config
        in_time, in_space = 1, 1
        for time, space in zip(config.temporal_expansions, config.spatial_expansions, strict=True):
            in_time, in_space = in_time * time, in_space * space
        return LatentSpec(
            channels=config.latent_channels,
            spatial=in_space,
            temporal=in_time,
            mean=tuple(config.latents_mean),
            std=tuple(std / config.scaling_factor for std in config.latents_std),
        )

    @property
    def tap_names(self) -> tuple[str, ...]:
        """As everywhere; the middle is called `block_in` here."""
        return ("block_in", *super().tap_names[1:])

    def on_grid(self, feature: Tensor, num_latents: int) -> Tensor:
        """Without the frames that the first latent frame has too many at this point."""
        return feature[:, :, feature.shape[2] // num_latents - 1 :]


register_release(
    Release(
        name="mochi",
        repository="genmo/mochi-1-preview",
        revision="",
        licence="Apache-2.0",
        latents=LatentSpec(channels=12, spatial=8, temporal=6),
        decoder_parameters=362_526_595,
    ),
    MochiTeacher,
)
