"""Inverted bottleneck in 3-D: wide only where the convolution is depthwise (MobileNetV2, arXiv 1801.04381)."""

from dataclasses import dataclass

from torch import Tensor

from blocks.layers.activations import ACTIVATIONS
from blocks.layers.convolutions import Conv3d
from blocks.layers.norms import norm_after, norm_before
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("inverted_bottleneck3d", label="mb3d")
class InvertedBottleneck3d(Block):
    """1x1x1 to the inner width, depthwise k x k x k, 1x1x1 back, plus the input; `(b, c, t, h, w)`."""

    normed = ("expand", "norm1"), ("depthwise", "norm2"), ("project", "norm3")

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        expansion: int = choice(2, 4)
        """Inner width as a multiple of the input's."""
        kernel_size: int = choice(3, 5)
        """Length, height and width of the depthwise kernel."""
        norm: str = choice("rms", "batch", "none")
        """RMS norm of the input, batch norm after each convolution, or none."""
        activation: str = choice("silu", "relu")
        """Activation in both places."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner, kernel = config.expansion * in_channels, config.kernel_size
        self.norm = norm_before(config.norm)
        self.expand = Conv3d(in_channels, inner, (1, 1, 1))
        self.norm1 = norm_after(config.norm, inner)
        self.depthwise = Conv3d(inner, inner, (kernel, kernel, kernel), groups=inner)
        self.norm2 = norm_after(config.norm, inner)
        self.project = Conv3d(inner, out_channels, (1, 1, 1))
        self.norm3 = norm_after(config.norm, out_channels)
        self.activation = ACTIVATIONS[config.activation]()
        self.skip = Conv3d(in_channels, out_channels, (1, 1, 1)) if in_channels != out_channels else None

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        hidden = self.activation(self.norm1(self.expand(self.norm(x), time)))
        hidden = self.activation(self.norm2(self.depthwise(hidden, time)))
        skip = x if self.skip is None else self.skip(x, time)
        out: Tensor = skip + self.norm3(self.project(hidden, time))
        return out
