"""Wan 2.1's VAE (arXiv 2503.20314) and the small embedded teacher of the same class and latent geometry."""

import importlib.resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.teachers.teacher import Teacher, register_teacher
from nas.teachers.weights import hub_weights, local_weights
from nas.torchvision_operators import import_torchvision
from search_spaces import LatentSpec

_CLASS = "AutoencoderKLWan"
_REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
_REVISION = "0fad780a534b6463e45facd96134c9f345acfa5b"


class WanTeacher(Teacher):
    """diffusers' AutoencoderKLWan: causal, decodes one latent frame at a time with caches of its own."""

    @property
    def spec(self) -> LatentSpec:
        """16 channels, 4x8x8 for Wan 2.1; the first latent frame is one frame."""
        config: Any = self.skeleton.config
        return LatentSpec(
            channels=config.z_dim,
            spatial=config.scale_factor_spatial,
            temporal=config.scale_factor_temporal,
            frame_rule="leading",
            mean=tuple(config.latents_mean),
            std=tuple(config.latents_std),
            causal=True,
        )

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The middle and every up block."""
        config: Any = self.skeleton.config
        return ("mid_block", *(f"up_blocks.{index}" for index in range(len(config.dim_mult))))

    def build(self) -> nn.Module:
        """An AutoencoderKLWan."""
        import_torchvision()
        from diffusers import AutoencoderKLWan

        model: nn.Module = AutoencoderKLWan(**self.weights.config)
        return model

    def run_encoder(self, model: Any, video: Tensor) -> Tensor:
        """The mode of the posterior."""
        latents: Tensor = model.encode(video).latent_dist.mode()
        return latents

    def run_decoder(self, model: Any, latents: Tensor) -> Tensor:
        """The class clamps to [-1, 1] itself."""
        frames: Tensor = model.decode(latents, return_dict=False)[0]
        return frames


def _wan(weights: Path | None, device: str | torch.device) -> Teacher:
    if weights is None:
        source = f"{_REPOSITORY}@{_REVISION[:7]}"
        return WanTeacher(
            "wan", source, "Apache-2.0", hub_weights(_REPOSITORY, _REVISION, "vae", _CLASS, "wan"), device
        )
    return WanTeacher("wan", str(weights), "Apache-2.0", local_weights(weights, _CLASS), device)


def _wan_tiny(weights: Path | None, device: str | torch.device) -> Teacher:
    embedded = Path(str(importlib.resources.files("nas.assets"))) / "wan_tiny"
    files = local_weights(weights or embedded, _CLASS)
    return WanTeacher("wan-tiny", str(weights or "embedded"), "as this package", files, device)


register_teacher("wan", _wan)
register_teacher("wan-tiny", _wan_tiny)
