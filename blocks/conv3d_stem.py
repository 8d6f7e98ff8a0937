"""The first convolution over latents, dense in time and space."""

from dataclasses import dataclass

from torch import Tensor

from blocks.layers.convolutions import Conv3d
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("conv3d_stem", label="stem3d", role="stem")
class Conv3dStem(Block):
    """Dense k x k x k convolution, latents -> features."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Length, height and width of the kernel."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, out_channels, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, width, t, h, w)`."""
        out: Tensor = self.conv(x, time)
        return out
