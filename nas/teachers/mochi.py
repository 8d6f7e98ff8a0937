"""Mochi 1's VAE (Genmo)."""

from typing import Any

from torch import Tensor, nn

from nas.teachers.registry import Release, register_release
from nas.teachers.teacher import Teacher
from search_spaces import LatentSpec


class MochiTeacher(Teacher):
    """diffusers' AutoencoderKLMochi: encodes the whole clip at once, decodes one latent frame at a time, 6x in time.

    All latent frames are upsampled alike; only at the end the first five frames are dropped. Half precision is not for
    it: the encoder takes sines of 256 pi times a pixel, and rounded to bfloat16 a pixel has another sine.
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

    def build(self) -> nn.Module:
        """With a decoder that hands the past from latent frame to latent frame.

        The class can do so for convolutions that pad with zeros in space; Mochi's repeat the border. The same padding
        is moved into the convolution, and only the past is left to the class: the same frames in bounded memory.
        """
        model: Any = super().build()
        model.use_framewise_decoding, model.num_latent_frames_batch_size = True, 1
        for causal in model.decoder.modules():
            if getattr(causal, "pad_mode", None) == "replicate":
                causal.pad_mode = "constant"
                causal.conv = _pad_by_itself(causal.conv, (0, causal.height_pad, causal.width_pad))
        built: nn.Module = model
        return built

    def on_grid(self, feature: Tensor, num_latents: int) -> Tensor:
        """Without the frames that the first latent frame has too many at this point."""
        return feature[:, :, feature.shape[2] // num_latents - 1 :]


def _pad_by_itself(conv: Any, padding: tuple[int, int, int]) -> nn.Module:
    """The same convolution (of random weights), repeating the border."""
    sizes = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
    padded: nn.Module = type(conv)(*sizes, padding, conv.dilation, padding_mode="replicate")
    return padded


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
