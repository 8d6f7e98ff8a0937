"""Time by a convolution over three frames, space by nearest neighbours and a 2-D convolution.

Used in the decoders of Wan (arXiv 2503.20314) and Flash-VAED (arXiv 2602.19161).
"""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from blocks.layers.convolutions import Conv3d, EnlargedConv2d, enlarge
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, register_block
from blocks.time_context import TimeContext, to_frames


@register_block("nearest_conv2plus1d", label="near21d", role="upsampler")
class NearestConv2plus1d(Upsampler):
    """(3, 1, 1) convolution C -> C st into time, enlarge each frame, 3x3 convolution to the new width."""

    output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        skip: bool = choice(False, True)
        """Whether to add the enlarged input, its channels duplicated or left out as the width demands."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, skip=config.skip)
        grows = temporal_factor > 1
        self.grow = Conv3d(in_channels, in_channels * temporal_factor, (3, 1, 1)) if grows else None
        self.conv = EnlargedConv2d(in_channels, out_channels, spatial_factor)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b t', c', h s, w s)`."""
        steps = self.temporal_factor
        grown = x if self.grow is None else self.grow(x, time)
        grown = rearrange(grown, "b (st c) t h w -> (b t st) c h w", st=steps)
        out: Tensor = self.conv(time.drop_leading(grown, steps - 1))
        if not self.has_skip:
            return out
        repeated = time.drop_leading(to_frames(x).repeat_interleave(steps, dim=0), steps - 1)
        return self.with_skip(out, enlarge(repeated, self.spatial_factor))
