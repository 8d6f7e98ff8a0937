"""Decoupled 3-D pixel shuffle (Turbo-VAED, arXiv 2508.09136): channels to time, then a 2-D shuffle per frame."""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor
from torch.nn import functional

from blocks.convolutions import Conv3d
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("decoupled_pixel_shuffle3d", label="dps", role="upsampler")
class DecoupledPixelShuffle3d(Block):
    """One dense convolution C -> C' st s^2, then time and space apart: no tensor above rank 5, two short reshapes."""

    output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3, 1)
        """Kernel of the expanding convolution (3 as published; 1 is 27 times cheaper)."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__()
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, out_channels * temporal_factor * spatial_factor**2, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b t', c', h s, w s)`."""
        x = rearrange(self.conv(x, time), "b (c st) t h w -> (b t st) c h w", st=self.temporal_factor)
        x = time.drop_leading(x, self.temporal_factor - 1)
        return functional.pixel_shuffle(x, self.spatial_factor)
