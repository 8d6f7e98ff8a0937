"""Decoupled pixel shuffle from a 2-D convolution: frames stay 4-D from end to end (TAEHV's larger variant).

Sub-pixel convolutions are those of arXiv 1609.05158; channels become frames as in Turbo-VAED (arXiv 2508.09136).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from blocks.layers.convolutions import PROJECTIONS
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, register_block
from blocks.time_context import TimeContext, channels_to_frames


@register_block("pixel_shuffle2d", label="ps2d", role="upsampler")
class PixelShuffle2d(Upsampler):
    """C -> C' st s^2 channels on every frame, channels to time, then a 2-D shuffle."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        projection: str = choice(*PROJECTIONS)
        """Convolution that makes the channels: 3x3, depthwise 3x3 + 1x1, or 1x1."""
        skip: bool = choice(False, True)
        """Whether to add the input's channels, duplicated."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, skip=config.skip)
        depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        kernel = 3 if config.projection == "dense" else 1
        self.depthwise = depthwise if config.projection == "separable" else nn.Identity()
        self.conv = nn.Conv2d(in_channels, self.expanded_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t', c', h s, w s)`."""
        expanded = self.with_skip(self.conv(self.depthwise(x)), x)
        x = channels_to_frames(expanded, self.temporal_factor)
        x = time.drop_leading(x, self.temporal_factor - 1)
        return functional.pixel_shuffle(x, self.spatial_factor)
