"""Ordinary 3-D pixel shuffle: one convolution, one rearrangement of time, height and width (LTX-Video)."""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from blocks.convolutions import Conv3d
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("pixel_shuffle3d", label="ps3d", role="upsampler")
class PixelShuffle3d(Block):
    """One dense convolution C -> C' st s^2, then a rank-8 rearrangement; the baseline of the decoupled shuffle."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3, 1)
        """Kernel of the expanding convolution."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__()
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, out_channels * temporal_factor * spatial_factor**2, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, c', t', h s, w s)`."""
        x = rearrange(
            self.conv(x, time),
            "b (c st sh sw) t h w -> b c (t st) (h sh) (w sw)",
            st=self.temporal_factor,
            sh=self.spatial_factor,
            sw=self.spatial_factor,
        )
        return time.drop_leading_video(x, self.temporal_factor - 1)
