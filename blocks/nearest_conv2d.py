"""Nearest-neighbour enlargement with 2-D convolutions only; time grows out of channels (TAEHV)."""

from dataclasses import dataclass

from torch import Tensor, nn

from blocks.layers.convolutions import EnlargedConv2d, enlarge
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, published, register_block
from blocks.time_context import TimeContext, channels_to_frames


@register_block("nearest_conv2d", label="near2d", role="upsampler")
class NearestConv2d(Upsampler):
    """Enlarge each frame, 1x1 convolution C -> C st into time, 3x3 convolution to the new width; 4-D tensors only."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        skip: bool = choice(False, True)
        """Whether to add the enlarged input, its channels duplicated or left out as the width demands."""
        bias: bool = published(True, False)
        """Whether the last convolution has a bias (none in TAEHV)."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, skip=config.skip)
        self.grow = nn.Conv2d(in_channels, in_channels * temporal_factor, 1, bias=False)
        self.conv = EnlargedConv2d(in_channels, out_channels, spatial_factor, config.bias)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t', c', h s, w s)`."""
        steps = self.temporal_factor
        # Pointwise, so it may as well run before the enlargement, on a quarter of the positions.
        grown = time.drop_leading(channels_to_frames(self.grow(x), steps), steps - 1)
        out: Tensor = self.conv(grown)
        if not self.has_skip:
            return out
        repeated = time.drop_leading(x.repeat_interleave(steps, dim=0), steps - 1)
        return self.with_skip(out, enlarge(repeated, self.spatial_factor))
