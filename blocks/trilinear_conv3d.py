"""Linear interpolation in time and bilinear in space, then a convolution: the smooth baseline."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from blocks.layers.convolutions import Conv3d
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, register_block
from blocks.time_context import TimeContext, to_video


@register_block("trilinear_conv3d", label="trilinear", role="upsampler")
class TrilinearConv3d(Upsampler):
    """Trilinear interpolation in two steps on 4-D tensors (Core ML has no 5-D interpolation), then k x k x k.

    In time each frame is reached from the one before it in equal steps, so nothing looks ahead.
    """

    input_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Length, height and width of the kernel, after the interpolation."""
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
            steps = self.temporal_factor
            before = time.previous(x)
            between = [before + (x - before) * (step / steps) for step in range(1, steps)]
            x = rearrange(torch.stack([*between, x], dim=1), "bt st c h w -> (bt st) c h w")
            x = time.drop_leading(x, steps - 1)
        if self.spatial_factor > 1:
            x = functional.interpolate(x, scale_factor=float(self.spatial_factor), mode="bilinear")
        video = to_video(x, time)
        return self.with_skip(self.conv(video, time), video)
