"""Dense 3-D convolutions that are trained as a sum of branches and run as one (OREPA, arXiv 2204.00826).

The idea is RepVGG's (arXiv 2101.03697), which sums the outputs of the branches instead of their kernels.
"""

from dataclasses import dataclass

from torch import nn

from blocks.layers.convolutions import BranchedConv, DenseConv
from blocks.layers.residual import Residual3d
from blocks.registry import BlockConfig, choice, register_block


@register_block("reparameterized_conv3d", label="rep3d")
class ReparameterizedConv3d(Residual3d):
    """Residual block of two such convolutions, `(b, c, t, h, w)`; `blocks.rewrites.merge_branches` makes them plain."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        activation: str = choice("silu", "relu")
        """Activation before the first convolution; "silu" before the second."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        def convolution(wide: int, narrow: int, kernel_size: int) -> nn.Module:
            # With a kernel of 1, the skip connection's, all branches would be the same.
            return (BranchedConv if kernel_size > 1 else DenseConv)(wide, narrow, kernel_size)

        super().__init__(convolution, 3, config.activation, in_channels, out_channels)
