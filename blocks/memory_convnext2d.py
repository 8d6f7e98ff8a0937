"""ConvNeXt (arXiv 2201.03545) over a frame and the one before: a memory block with a large kernel (TAEHV's larger)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks.layers.activations import ACTIVATIONS
from blocks.layers.norms import norm_before
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("memory_convnext2d", label="cnx2d")
class MemoryConvnext2d(Block):
    """Depthwise k x k on frame and frame before, 1x1 to the inner width, 1x1 back, plus the input; `(b t, c, h, w)`."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(7, 5)
        """Height and width of the depthwise kernel."""
        expansion: int = choice(4, 2)
        """Inner width as a multiple of the input's."""
        norm: str = choice("none", "rms")
        """Norm between the depthwise and the first 1x1 convolution."""
        activation: str = choice("relu", "silu")
        """Activation at the inner width."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        both, inner, kernel = 2 * in_channels, config.expansion * in_channels, config.kernel_size
        self.depthwise = nn.Conv2d(both, both, kernel, padding=kernel // 2, groups=both)
        self.norm = norm_before(config.norm)
        self.expand = nn.Conv2d(both, inner, 1)
        self.activation = ACTIVATIONS[config.activation]()
        self.project = nn.Conv2d(inner, out_channels, 1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, in, h, w)` -> `(b t, out, h, w)`."""
        hidden = self.norm(self.depthwise(torch.cat([x, time.previous(x)], dim=1)))
        out: Tensor = self.skip(x) + self.project(self.activation(self.expand(hidden)))
        return out
