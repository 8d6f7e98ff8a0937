"""The residual block that the 3-D blocks share; they differ in the convolution."""

from collections.abc import Callable

from torch import Tensor, nn

from blocks.layers.activations import ACTIVATIONS
from blocks.layers.norms import ChannelLayerNorm, RmsNorm, WeightedRmsNorm
from blocks.registry import Block
from blocks.time_context import TimeContext

Convolution = Callable[[int, int, int], nn.Module]
"""Makes a convolution from channels in, channels out and kernel; the module takes a video and its time context."""


class Residual3d(Block):
    """conv1(act(rms(x))), conv2(silu(rms(.))), plus the input (Turbo-VAED, arXiv 2508.09136).

    Where the width changes, the skip connection is a layer norm and one of the block's convolutions with kernel 1.

    Args:
        convolution: makes every convolution of the block.
        activation: "silu" or "relu", the first of the two activations.
        weighted: norms have a weight per channel, and the skip connection has no norm (Flash-VAED, arXiv 2602.19161).
    """

    def __init__(
        self,
        convolution: Convolution,
        kernel_size: int,
        activation: str,
        in_channels: int,
        out_channels: int,
        weighted: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = WeightedRmsNorm(in_channels) if weighted else RmsNorm()
        self.activation1 = ACTIVATIONS[activation]()
        self.conv1 = convolution(in_channels, out_channels, kernel_size)
        self.norm2 = WeightedRmsNorm(out_channels) if weighted else RmsNorm()
        self.activation2 = nn.SiLU()
        self.conv2 = convolution(out_channels, out_channels, kernel_size)
        self.skip_norm: nn.Module | None = None
        if in_channels != out_channels:
            self.skip_norm = nn.Identity() if weighted else ChannelLayerNorm(in_channels)
            self.skip_conv = convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        hidden = self.conv1(self.activation1(self.norm1(x)), time)
        hidden = self.conv2(self.activation2(self.norm2(hidden)), time)
        skip = x if self.skip_norm is None else self.skip_conv(self.skip_norm(x), time)
        out: Tensor = skip + hidden
        return out
