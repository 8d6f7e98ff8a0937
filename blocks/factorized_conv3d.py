"""Convolutions factorised into space (1, k, k) and time (3, 1, 1) (R(2+1)D, arXiv 1711.11248).

Used in the decoders of Cosmos (arXiv 2501.03575) and Allegro (arXiv 2410.15458).
"""

from dataclasses import dataclass

from blocks.layers.convolutions import FactorizedConv
from blocks.layers.residual import Residual3d
from blocks.registry import BlockConfig, choice, register_block


@register_block("factorized_conv3d", label="fact3d")
class FactorizedConv3d(Residual3d):
    """Residual block of two such convolutions, `(b, c, t, h, w)`."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3, 5)
        """Height and width of the kernels in space; those in time are 3 long."""
        activation: str = choice("silu", "relu")
        """Activation before the first convolution; the published decoders use "relu" in stages that upsample."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__(FactorizedConv, config.kernel_size, config.activation, in_channels, out_channels)
