"""3-D convolutions of low rank between space and time: narrow in the middle, cheaper where little moves.

Low-rank kernels are those of arXiv 1405.3866, here split between space and time.
"""

from dataclasses import dataclass

from torch import nn

from blocks.layers.convolutions import DenseConv, FactorizedConv
from blocks.layers.residual import Residual3d
from blocks.registry import BlockConfig, choice, register_block


@register_block("low_rank_conv3d", label="lr3d")
class LowRankConv3d(Residual3d):
    """Residual block of two such convolutions, `(b, c, t, h, w)`."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        rank: float = choice(0.5, 0.25)
        """Channels between space and time, as a share of the output's."""
        activation: str = choice("silu", "relu")
        """Activation before the first convolution; "silu" before the second."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        def convolution(wide: int, narrow: int, kernel_size: int) -> nn.Module:
            # A kernel of 1 is the skip connection's: all channels have to come through.
            if kernel_size == 1:
                return DenseConv(wide, narrow, 1)
            return FactorizedConv(wide, narrow, kernel_size, config.rank)

        super().__init__(convolution, 3, config.activation, in_channels, out_channels)
