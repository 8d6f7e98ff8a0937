"""Wan's VAEs (arXiv 2503.20314), and the small embedded teacher of the same class and latent geometry as Wan 2.1's."""

import importlib.resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.machine.fast_convolutions import fast_convolutions
from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class WanTeacher(Teacher):
    """diffusers' AutoencoderKLWan: causal, decodes one latent frame at a time with caches of its own.

    It clamps its frames. Wan 2.2's unpatchifies them after its decoder, which counts for the compression. In a stream
    its encoder and decoder are given the same pieces, with caches that are kept outside.
    """

    class_name = "AutoencoderKLWan"
    head = ("norm_out", "conv_out")
    streams = True

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

    def encode_chunk(self, video: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The first piece of a clip is one frame, every other one is four."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        model: Any = self.model
        frames = video.to(self.device, self.dtype)
        if model.config.patch_size is not None:
            frames = patchify(frames, patch_size=model.config.patch_size)
        cache = _empty_cache(model.encoder) if state is None else list(state)
        sizes = [1] * (state is None) + [4] * ((frames.shape[2] - (state is None)) // 4)
        with fast_convolutions(self.device):
            found = [
                model.encoder(piece, feat_cache=cache, feat_idx=[0]) for piece in torch.split(frames, sizes, dim=2)
            ]
            mean, _ = model.quant_conv(torch.cat(found, dim=2)).chunk(2, dim=1)
        return mean.float(), cache

    def decode_chunk(self, latents: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One latent frame after the other."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        model: Any = self.model
        cache = _empty_cache(model.decoder) if state is None else list(state)
        found = []
        with fast_convolutions(self.device):
            pieces = model.post_quant_conv(latents.to(self.device, self.dtype)).split(1, dim=2)
            for index, piece in enumerate(pieces):
                first = state is None and index == 0
                found.append(model.decoder(piece, feat_cache=cache, feat_idx=[0], first_chunk=first))
        frames = torch.cat(found, dim=2)
        if model.config.patch_size is not None:
            frames = unpatchify(frames, patch_size=model.config.patch_size)
        return frames.float().clamp(-1, 1), cache


def _empty_cache(coder: nn.Module) -> list[Any]:
    """A place for what each convolution in time has to remember."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return [None] * sum(isinstance(module, WanCausalConv3d) for module in coder.modules())


# fmt: off
_WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
    -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
    -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
    -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
_WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
    0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
    0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
    0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on

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
            "latents_mean": _WAN22_MEAN,
            "latents_std": _WAN22_STD,
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
        licence="Apache-2.0, as this package",
        latents=LatentSpec(channels=16, spatial=8, temporal=4),
        decoder_parameters=1_550_739,
        config={"base_dim": 16, "num_res_blocks": 1},
        embedded=Path(str(importlib.resources.files("nas.assets"))) / "wan_tiny",
        note="base width 16, one residual block per stage",
    ),
    WanTeacher,
)
