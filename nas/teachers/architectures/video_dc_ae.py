"""Video DC-AE, the autoencoder of Open-Sora 2.0 (arXiv 2503.09642) after DC-AE (arXiv 2410.10733).

The defaults are the published model: hpcai-tech/Open-Sora-v2-Video-DC-AE, F32T4C128_AE.safetensors, whose 339 names and
shapes are those of the state dict here.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from nas.machine.torchvision_operators import import_torchvision
from nas.teachers.architectures.video_dc_ae_layers import (
    HEAD_CHANNELS,
    AttentionBlock,
    AverageChannels,
    Chain,
    Conv,
    GrowingShortcut,
    NearestConv,
    RepeatChannels,
    Residual,
    RmsNorm,
    ShrinkingShortcut,
    TwoConvs,
)

import_torchvision()

from diffusers import ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput  # noqa: E402


class Encoder(nn.Module):
    """Video -> latents: every stage but the last ends in a downsampler."""

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        layers: Sequence[int],
        attention_stages: Sequence[int],
        temporal_stages: Sequence[int],
    ) -> None:
        super().__init__()
        self.project_in = Conv(3, widths[0], 3)
        self.stages = nn.ModuleList()
        for index, width in enumerate(widths):
            parts = _blocks(width, layers[index], index in attention_stages)
            if index + 1 < len(widths):
                parts.append(_downsampler(width, widths[index + 1], index in temporal_stages))
            self.stages.append(Chain(*parts))
        self.project_out = Residual(
            Chain(Conv(widths[-1], latent_channels, 3)), AverageChannels(widths[-1] // latent_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(b, 3, t, h, w)` -> `(b, latent, t', h', w')`."""
        x = self.project_in(x)
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.project_out(x)
        return out


class Decoder(nn.Module):
    """Latents -> frames: stages from the last to the first, each but the last begins with an upsampler."""

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        layers: Sequence[int],
        attention_stages: Sequence[int],
        temporal_stages: Sequence[int],
    ) -> None:
        super().__init__()
        self.project_in = Residual(Conv(latent_channels, widths[-1], 3), RepeatChannels(widths[-1] // latent_channels))
        self.stages = nn.ModuleList()
        for index, width in enumerate(widths):
            parts = _blocks(width, layers[index], index in attention_stages)
            if index + 1 < len(widths):
                parts.insert(0, _upsampler(widths[index + 1], width, index in temporal_stages))
            self.stages.append(Chain(*parts))
        self.project_out = Chain(RmsNorm(widths[0]), nn.ReLU(), Conv(widths[0], 3, 3))

    def forward(self, z: Tensor) -> Tensor:
        """`(b, latent, t, h, w)` -> `(b, 3, t', h', w')`, not clamped."""
        x = self.project_in(z)
        for stage in reversed(self.stages):
            x = stage(x)
        out: Tensor = self.project_out(x)
        return out


class AutoencoderVideoDC(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Deterministic, not causal autoencoder of whole clips; the defaults are 32x smaller in space and 4x in time.

    Videos are `(b, 3, t, h, w)`, RGB, nominally in [-1, 1]; latents `(b, c, t', h', w')`, raw: there is no distribution
    and no scaling factor. `n` latent frames decode to `4 n` frames, but one latent frame decodes to one frame (every
    step in time is skipped where there is one frame), so a clip of four frames does not come back as four.

    Args:
        latent_channels: channels of the latents; divides the width of the last stage.
        block_out_channels: width of each stage, at full resolution first.
        encoder_layers_per_block: blocks of each stage of the encoder.
        decoder_layers_per_block: blocks of each stage of the decoder, in the same order.
        attention_stages: indices of the stages made of attention blocks; the others are made of residual blocks.
        temporal_stages: indices of the stages after which the encoder halves the number of frames, too.

    Raises:
        ValueError: the arguments contradict each other.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_channels: int = 128,
        block_out_channels: Sequence[int] = (128, 256, 512, 512, 1024, 1024),
        encoder_layers_per_block: Sequence[int] = (2, 2, 2, 3, 3, 3),
        decoder_layers_per_block: Sequence[int] = (3, 3, 3, 3, 3, 3),
        attention_stages: Sequence[int] = (3, 4, 5),
        temporal_stages: Sequence[int] = (3, 4),
    ) -> None:
        super().__init__()
        _check_stages(len(block_out_channels), attention_stages, temporal_stages)
        _check_widths(latent_channels, block_out_channels, attention_stages)
        for layers in (encoder_layers_per_block, decoder_layers_per_block):
            if len(layers) != len(block_out_channels):
                raise ValueError(
                    f"every stage needs its number of blocks, got {len(layers)} numbers ({tuple(layers)}) for "
                    f"{len(block_out_channels)} stages"
                )
        shared = (attention_stages, temporal_stages)
        self.encoder = Encoder(latent_channels, block_out_channels, encoder_layers_per_block, *shared)
        self.decoder = Decoder(latent_channels, block_out_channels, decoder_layers_per_block, *shared)
        self.spatial_compression_ratio = 2 ** (len(block_out_channels) - 1)
        self.temporal_compression_ratio = 2 ** len(set(temporal_stages))

    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[Tensor]:
        """Video `(b, 3, t, h, w)` in [-1, 1] -> latents `(b, c, t / 4, h / 32, w / 32)`.

        Raises:
            ValueError: the frames, the height or the width are no multiple of the compression.
        """
        time, space = self.temporal_compression_ratio, self.spatial_compression_ratio
        frames, height, width = x.shape[2:]
        if frames % time or height % space or width % space:
            raise ValueError(
                f"frames must be a multiple of {time}, height and width of {space}, got {frames} frames of "
                f"{height}x{width}: crop or pad the clip"
            )
        latents = self.encoder(x)
        return EncoderOutput(latent=latents) if return_dict else (latents,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Latents `(b, c, t, h, w)` -> frames `(b, 3, 4 t, 32 h, 32 w)`, nominally in [-1, 1], not clamped."""
        frames = self.decoder(z)
        return DecoderOutput(sample=frames) if return_dict else (frames,)

    def forward(self, sample: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Video -> its reconstruction, `decode(encode(sample))`."""
        (latents,) = self.encode(sample, return_dict=False)
        return self.decode(latents, return_dict)


def _blocks(channels: int, layers: int, attention: bool) -> list[nn.Module]:
    return [AttentionBlock(channels) if attention else Residual(TwoConvs(channels)) for _ in range(layers)]


def _downsampler(in_channels: int, out_channels: int, temporal: bool) -> nn.Module:
    conv = Conv(in_channels, out_channels, 3, stride=(2 if temporal else 1, 2, 2))
    return Residual(conv, ShrinkingShortcut(in_channels, out_channels, temporal))


def _upsampler(in_channels: int, out_channels: int, temporal: bool) -> nn.Module:
    conv = NearestConv(in_channels, out_channels, temporal)
    return Residual(conv, GrowingShortcut(in_channels, out_channels, temporal))


def _check_widths(latent_channels: int, widths: Sequence[int], attention_stages: Sequence[int]) -> None:
    """The shortcuts repeat or average whole channels, the heads have a fixed width."""
    if widths[-1] % latent_channels:
        raise ValueError(f"latent_channels must divide the last width, got {latent_channels} and {widths[-1]}")
    for this, following in pairwise(widths):
        if 4 * this % following:
            raise ValueError(f"a width must divide four times the one before, got {this}, {following}")
    for index in attention_stages:
        if widths[index] % HEAD_CHANNELS:
            raise ValueError(
                f"the width of a stage with attention must be a multiple of {HEAD_CHANNELS}, "
                f"got {widths[index]} at stage {index}"
            )


def _check_stages(stages: int, attention_stages: Sequence[int], temporal_stages: Sequence[int]) -> None:
    """Membership tests would silently pass over an index that is no stage."""
    for name, given, limit in (
        ("attention_stages", attention_stages, stages),
        ("temporal_stages", temporal_stages, stages - 1),
    ):
        if not set(given) <= set(range(limit)):
            raise ValueError(f"{name} must be among 0 to {limit - 1}, got {tuple(given)}")
