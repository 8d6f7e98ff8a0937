"""The VAEs of HunyuanVideo (arXiv 2412.03603) and HunyuanVideo 1.5."""

from typing import Any

import torch
from torch import nn

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class HunyuanVideo15Teacher(Teacher):
    """diffusers' AutoencoderKLHunyuanVideo15: the whole clip at once, causal; a batch of one only."""

    class_name = "AutoencoderKLHunyuanVideo15"
    gpu_dtype = torch.float16

    @property
    def spec(self) -> LatentSpec:
        """32 channels, 4x16x16; the pipeline multiplies latents by `scaling_factor` to bring them to unit scale."""
        config: Any = self.skeleton.config
        return LatentSpec(
            channels=config.latent_channels,
            spatial=config.spatial_compression_ratio,
            temporal=config.temporal_compression_ratio,
            std=(1 / config.scaling_factor,) * config.latent_channels,
        )


class HunyuanVideoTeacher(HunyuanVideo15Teacher):
    """diffusers' AutoencoderKLHunyuanVideo, in one piece: convolutions and attention look back only, norms do not.

    A group norm takes in all frames of the clip, so pieces of a clip give other frames than the whole.

    By default the class cuts clips into overlapping pieces of 16 frames and blends them, which is not what the model
    makes of a clip: switched off.
    """

    class_name = "AutoencoderKLHunyuanVideo"
    head = ("conv_norm_out", "conv_act", "conv_out")

    def build(self) -> nn.Module:
        """Without temporal tiles."""
        model: Any = super().build()
        model.use_framewise_encoding = model.use_framewise_decoding = False
        built: nn.Module = model
        return built


register_release(
    Release(
        name="hunyuan",
        repository="hunyuanvideo-community/HunyuanVideo",
        revision="",
        licence="Tencent Hunyuan Community",
        latents=LatentSpec(channels=16, spatial=8, temporal=4),
        decoder_parameters=146_136_067,
        note="decoded in one piece; the class blends overlapping pieces of 16 frames by default",
    ),
    HunyuanVideoTeacher,
)
register_release(
    Release(
        name="hunyuan1.5",
        repository="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
        revision="",
        licence="Tencent Hunyuan Community",
        latents=LatentSpec(channels=32, spatial=16, temporal=4),
        decoder_parameters=871_309_571,
    ),
    HunyuanVideo15Teacher,
)
