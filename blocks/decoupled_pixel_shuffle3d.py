"""Decoupled 3-D pixel shuffle (Turbo-VAED, arXiv 2508.09136): channels to time, then a 2-D shuffle per frame."""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor
from torch.nn import functional

from blocks.layers.convolutions import PROJECTIONS, make_projection
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("decoupled_pixel_shuffle3d", label="dps", role="upsampler")
class DecoupledPixelShuffle3d(Upsampler):
    """C -> C' st s^2 channels, then time and space apart: no tensor above rank 5, two short reshapes."""

    output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        projection: str = choice(*PROJECTIONS)
        """Convolution that makes the channels (dense as published; pointwise is 27 times cheaper)."""
        skip: bool = choice(False, True)
        """Whether to add the input's channels, duplicated."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, skip=config.skip)
        self.conv = make_projection(config.projection, in_channels, self.expanded_channels)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b t', c', h s, w s)`."""
        expanded = self.with_skip(self.conv(x, time), x)
        x = rearrange(expanded, "b (c st) t h w -> (b t st) c h w", st=self.temporal_factor)
        x = time.drop_leading(x, self.temporal_factor - 1)
        return functional.pixel_shuffle(x, self.spatial_factor)
