"""Depthwise-separable 3-D convolutions: Turbo-VAED (arXiv 2508.09136, kernel 5), Flash-VAED (2602.19161, kernel 3)."""

from dataclasses import dataclass

from blocks.layers.convolutions import DepthwiseSeparableConv
from blocks.layers.residual import Residual3d
from blocks.registry import BlockConfig, choice, published, register_block


@register_block("depthwise_separable_conv3d", label="dw3d")
class DepthwiseSeparableConv3d(Residual3d):
    """Residual block of two such convolutions, `(b, c, t, h, w)`."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(5, 3)
        """Length, height and width of the kernels."""
        activation: str = choice("silu", "relu")
        """Activation before the first convolution; the published decoders use "relu" in stages that upsample."""
        weighted: bool = published(False, True)
        """Whether norms have a weight per channel and the skip connection has none (Flash-VAED)."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        kernel, activation, weighted = config.kernel_size, config.activation, config.weighted
        super().__init__(DepthwiseSeparableConv, kernel, activation, in_channels, out_channels, weighted)
