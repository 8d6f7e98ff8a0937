"""The Video DC-AE of Open-Sora 2.0 (arXiv 2503.09642), which diffusers lacks."""

from typing import Any

import torch
from torch import Tensor

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class VideoDCTeacher(Teacher):
    """Our own AutoencoderVideoDC: the whole clip at once, not causal.

    A single latent frame would decode to one frame, against the frame rule: at least two are asked for.
    """

    class_name = "AutoencoderVideoDC"
    head = ("project_out",)
    gpu_dtype = torch.bfloat16
    least_latents = 2

    @property
    def spec(self) -> LatentSpec:
        """128 channels, 4x32x32, 4n frames; the latents are not scaled."""
        model: Any = self.skeleton
        return LatentSpec(
            channels=model.config.latent_channels,
            spatial=model.spatial_compression_ratio,
            temporal=model.temporal_compression_ratio,
            frame_rule="multiple",
            causal=False,
        )

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The stages, numbered from the frames to the latents."""
        stages = len(list(self.skeleton.get_submodule("decoder.stages").children()))
        return tuple(f"stages.{index}" for index in reversed(range(stages)))

    def model_class(self) -> Any:
        """Our own."""
        from nas.teachers.architectures.video_dc_ae import AutoencoderVideoDC

        return AutoencoderVideoDC

    def run_encoder(self, model: Any, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The encoder has no distribution, so a generator adds no noise."""
        latents: Tensor = model.encode(video, return_dict=False)[0]
        return latents


register_release(
    Release(
        name="video-dc-ae",
        repository="hpcai-tech/Open-Sora-v2-Video-DC-AE",
        revision="",
        licence="Apache-2.0",
        latents=LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False),
        decoder_parameters=239_022_211,
        note="one safetensors file without a configuration: the default of the class",
    ),
    VideoDCTeacher,
)
