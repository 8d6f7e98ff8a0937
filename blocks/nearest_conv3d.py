"""Nearest neighbours in time and space, then a convolution: the plainest way (as in HunyuanVideo, arXiv 2412.03603)."""

from dataclasses import dataclass

from torch import Tensor

from blocks.layers.convolutions import Conv3d, enlarge
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, register_block
from blocks.time_context import TimeContext, to_video


@register_block("nearest_conv3d", label="nearest", role="upsampler")
class NearestConv3d(Upsampler):
    """Each frame repeated and enlarged as a 4-D tensor (Core ML has no 5-D interpolation), then a convolution."""

    input_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Length, height and width of the kernel."""
        skip: bool = choice(False, True)
        """Whether to add the interpolated channels, duplicated or left out as the width demands."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, skip=config.skip)
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, out_channels, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b, c', t', h s, w s)`."""
        if self.temporal_factor > 1:
            x = time.drop_leading(x.repeat_interleave(self.temporal_factor, dim=0), self.temporal_factor - 1)
        video = to_video(enlarge(x, self.spatial_factor), time)
        return self.with_skip(self.conv(video, time), video)
