"""Healthy parts as somebody would write them into a file, for tests that drop them in or break them first."""

_IMPORTS = '''"""A part that somebody wrote."""
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.layers.convolutions import Conv3d
from blocks.layers.norms import RmsNorm
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext, to_frames, to_video
'''

BLOCK = (
    _IMPORTS
    + """
@register_block("dropped_in", label="dropped")
class DroppedIn(Block):
    @dataclass(frozen=True)
    class Config(BlockConfig):
        kernel_size: int = choice(3, 5)

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm()
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, out_channels, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        x = functional.silu(self.norm(x))
        return self.conv(x, time)
"""
)

UPSAMPLER = (
    _IMPORTS
    + """
@register_block("dropped_in", label="dropped", role="upsampler")
class DroppedIn(Block):
    @dataclass(frozen=True)
    class Config(BlockConfig):
        kernel_size: int = choice(3)

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__()
        self.factors = temporal_factor, spatial_factor
        self.conv = Conv3d(in_channels, out_channels, (3, 3, 3))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        steps, scale = self.factors
        x = self.conv(x, time)
        x = time.drop_leading_video(x.repeat_interleave(steps, dim=2), steps - 1)
        if scale > 1:
            x = to_video(functional.interpolate(to_frames(x), scale_factor=float(scale), mode="nearest"), time)
        return x
"""
)

HEAD = (
    _IMPORTS
    + """
@register_block("dropped_in", label="dropped", role="head")
class DroppedIn(Block):
    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        kernel_size: int = choice(1, 3)

    @classmethod
    def supports_factor(cls, spatial_factor: int) -> bool:
        return spatial_factor > 1

    @classmethod
    def width_multiple(cls, spatial_factor: int) -> int:
        return spatial_factor**2

    def __init__(self, config: Config, in_channels: int, spatial_factor: int) -> None:
        super().__init__()
        if spatial_factor == 1 or in_channels % spatial_factor**2:
            raise ValueError(f"{in_channels} channels cannot be shuffled by {spatial_factor}")
        self.factor = spatial_factor
        left, kernel = in_channels // spatial_factor**2, config.kernel_size
        self.conv = nn.Conv2d(left, 3, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        return self.conv(functional.pixel_shuffle(x, self.factor))
"""
)
