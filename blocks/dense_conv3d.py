"""Dense 3-D convolutions: the default of most video VAEs, here in Turbo-VAED's residual form (arXiv 2508.09136)."""

from dataclasses import dataclass

from blocks.layers.convolutions import DenseConv
from blocks.layers.residual import Residual3d
from blocks.registry import BlockConfig, choice, register_block


@register_block("dense_conv3d", label="conv3d")
class DenseConv3d(Residual3d):
    """Residual block of two such convolutions, `(b, c, t, h, w)`."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Length, height and width of the kernels."""
        activation: str = choice("silu", "relu")
        """Activation before the first convolution; the published decoders use "relu" in stages that upsample."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__(DenseConv, config.kernel_size, config.activation, in_channels, out_channels)
