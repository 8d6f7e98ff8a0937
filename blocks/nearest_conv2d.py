"""Nearest-neighbour enlargement with 2-D convolutions only; time grows out of channels (TAEHV)."""

from dataclasses import dataclass

from torch import Tensor, nn

from blocks.convolutions import EnlargedConv2d, duplicate_channels, enlarge
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext, channels_to_frames


@register_block("nearest_conv2d", label="near2d", role="upsampler")
class NearestConv2d(Block):
    """Enlarge each frame, 1x1 convolution C -> C st into time, 3x3 convolution to the new width; 4-D tensors only."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        shortcut: bool = choice(False, True)
        """Add the repeated channels, duplicated or left out as the width demands."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__()
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        self.shortcut = config.shortcut
        self.channels = out_channels
        self.grow = nn.Conv2d(in_channels, in_channels * temporal_factor, 1, bias=False)
        self.conv = EnlargedConv2d(in_channels, out_channels, spatial_factor)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t', c', h s, w s)`."""
        steps = self.temporal_factor
        # Pointwise, so it may as well run before the enlargement, on a quarter of the positions.
        grown = time.drop_leading(channels_to_frames(self.grow(x), steps), steps - 1)
        out: Tensor = self.conv(grown)
        if self.shortcut:
            repeated = time.drop_leading(x.repeat_interleave(steps, dim=0), steps - 1)
            out = out + enlarge(duplicate_channels(repeated, self.channels), self.spatial_factor)
        return out
