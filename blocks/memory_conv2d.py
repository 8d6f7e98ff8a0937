"""2-D convolutions that see the frame before: time without a 3-D convolution (the memory block of TAEHV)."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("memory_conv2d", label="mem2d")
class MemoryConv2d(Block):
    """Concatenate each frame with the one before, k x k convolutions with ReLU, plus the input; `(b t, c, h, w)`."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Height and width of all kernels."""
        depth: int = choice(3, 2)
        """Convolutions in the block (3 as published)."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        padding = config.kernel_size // 2
        widths = [2 * in_channels] + [out_channels] * config.depth
        layers: list[nn.Module] = []
        for wide, narrow in itertools.pairwise(widths):
            layers += [nn.Conv2d(wide, narrow, config.kernel_size, padding=padding), nn.ReLU()]
        self.convs = nn.Sequential(*layers[:-1])
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, in, h, w)` -> `(b t, out, h, w)`, values >= 0."""
        hidden = self.convs(torch.cat([x, time.previous(x)], dim=1))
        out: Tensor = self.activation(self.skip(x) + hidden)
        return out
