"""The VAEs of LTX-Video (arXiv 2501.00103) and LTX-2."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec

_DECODE_TIMESTEP = 0.05
"""What LTX-Video's pipeline is recommended to be called with, for releases whose decoder is told a noise level."""


class LTXVideoTeacher(Teacher):
    """diffusers' AutoencoderKLLTXVideo: the whole clip at once, not causal.

    Later releases (0.9.1 on) decode for a noise level, and may add noise between their blocks: it is the same for every
    decode here.
    """

    class_name = "AutoencoderKLLTXVideo"
    gpu_dtype = torch.bfloat16

    @property
    def spec(self) -> LatentSpec:
        """128 channels, 8x32x32; mean and std of the latents lie in the weights, not in the configuration."""
        config: Any = self.skeleton.config
        in_time, in_space = self._upsampling()
        return LatentSpec(
            channels=config.latent_channels,
            spatial=in_space * config.patch_size,
            temporal=in_time * config.patch_size_t,
            mean=self._statistics("latents_mean", 1),
            std=self._statistics("latents_std", config.scaling_factor),
            causal=bool(config.decoder_causal),
        )

    def run_decoder(self, model: Any, latents: Tensor) -> Tensor:
        """Latents -> frames, with the noise level where the model asks for one."""
        timestep = None
        if self.timestep_conditioned:
            timestep = torch.full((latents.shape[0],), _DECODE_TIMESTEP, dtype=latents.dtype, device=latents.device)
        with torch.random.fork_rng(devices=[latents.device] if latents.device.type == "cuda" else []):
            torch.manual_seed(0)
            frames: Tensor = model.decode(latents, timestep, return_dict=False)[0]
        return frames

    @property
    def timestep_conditioned(self) -> bool:
        """Whether the decoder is told a noise level."""
        config: Any = self.skeleton.config
        return bool(config.timestep_conditioning)

    @contextmanager
    def stopping_after(self, model: nn.Module, taps: Sequence[str]) -> Iterator[None]:
        """Without the scale and shift by noise level at the decoder's end, which fit its last width only."""
        decoder: Any = model.get_submodule("decoder")
        embedder, decoder.time_embedder = decoder.time_embedder, None
        try:
            with super().stopping_after(model, taps):
                yield
        finally:
            decoder.time_embedder = embedder

    def _statistics(self, name: str, divisor: float) -> tuple[float, ...]:
        return tuple((self.weights.tensor(name) / divisor).tolist()) if self.weights.known else ()

    def _upsampling(self) -> tuple[int, int]:
        """In time and in space, before the patches."""
        in_time = in_space = 1
        for block in self.skeleton.get_submodule("decoder.up_blocks").children():
            upsamplers: Any = block.upsamplers or ()
            for upsampler in upsamplers:
                in_time, in_space = in_time * upsampler.stride[0], in_space * upsampler.stride[1]
        return in_time, in_space


class LTX2VideoTeacher(LTXVideoTeacher):
    """diffusers' AutoencoderKLLTX2Video: causal or not as its configuration says."""

    class_name = "AutoencoderKLLTX2Video"


register_release(
    Release(
        name="ltx",
        repository="Lightricks/LTX-Video",
        revision="",
        licence="LTX-Video Open Weights",
        latents=LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
        decoder_parameters=238_789_296,
        note="0.9.0; from 0.9.1 on the decoder is told a noise level",
    ),
    LTXVideoTeacher,
)
register_release(
    Release(
        name="ltx2",
        repository="Lightricks/LTX-2",
        revision="",
        licence="LTX-2 Community",
        latents=LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
        decoder_parameters=528_380_720,
        config={"decoder_causal": False},
        note="released with a decoder that is not causal; the class default is causal",
    ),
    LTX2VideoTeacher,
)
