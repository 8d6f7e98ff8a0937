"""Nearest-neighbour interpolation in time and space, then a convolution: the plainest baseline."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from blocks.convolutions import Conv3d, duplicate_channels
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext, to_video


@register_block("nearest_conv3d", label="nearest", role="upsampler")
class NearestConv3d(Block):
    """Each frame repeated and enlarged as a 4-D tensor (Core ML has no 5-D interpolation), then a convolution."""

    input_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Kernel of the convolution."""
        shortcut: bool = choice(False, True)
        """Add the interpolated channels, duplicated or left out as the width demands."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__()
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        self.shortcut = config.shortcut
        self.channels = out_channels
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, out_channels, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b, c', t', h s, w s)`."""
        if self.temporal_factor > 1:
            x = time.drop_leading(x.repeat_interleave(self.temporal_factor, dim=0), self.temporal_factor - 1)
        if self.spatial_factor > 1:
            x = functional.interpolate(x, scale_factor=float(self.spatial_factor), mode="nearest")
        video = to_video(x, time)
        out: Tensor = self.conv(video, time)
        return out + duplicate_channels(video, self.channels) if self.shortcut else out
