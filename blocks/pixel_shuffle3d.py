"""Ordinary 3-D pixel shuffle: more channels, one rearrangement of time, height and width (LTX-Video)."""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from blocks.convolutions import EXPANSIONS, make_expansion
from blocks.registry import BlockConfig, choice, register_block
from blocks.time_context import TimeContext
from blocks.upsampler import Upsampler


@register_block("pixel_shuffle3d", label="ps3d", role="upsampler")
class PixelShuffle3d(Upsampler):
    """C -> C' st s^2 channels, then a rank-8 rearrangement; the baseline of the decoupled shuffle."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        expansion: str = choice(*EXPANSIONS)
        """What makes the channels (dense as published; pointwise is 27 times cheaper)."""
        shortcut: bool = choice(False, True)
        """Add the input's channels, duplicated."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, shortcut=config.shortcut)
        self.conv = make_expansion(config.expansion, in_channels, self.expanded_channels)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, c', t', h s, w s)`."""
        expanded = self.with_shortcut(self.conv(x, time), x)
        x = rearrange(
            expanded,
            "b (c st sh sw) t h w -> b c (t st) (h sh) (w sw)",
            st=self.temporal_factor,
            sh=self.spatial_factor,
            sw=self.spatial_factor,
        )
        return time.drop_leading_video(x, self.temporal_factor - 1)
