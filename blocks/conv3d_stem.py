"""The first convolution over latents, dense in time and space."""

from dataclasses import dataclass

from torch import Tensor

from blocks.layers.convolutions import Conv3d, as_it_is
from blocks.registry import Block, BlockConfig, choice, published, register_block
from blocks.time_context import TimeContext


@register_block("conv3d_stem", label="stem3d", role="stem")
class Conv3dStem(Block):
    """Dense k x k x k convolution, latents -> features."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Length, height and width of the kernel."""
        mixed: bool = published(False, True)
        """Whether a 1x1x1 convolution of the latents comes first (Wan, Flash-VAED)."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, out_channels, (kernel, kernel, kernel))
        self.widen: Conv3d | None = None
        if config.mixed:
            self.conv, self.widen = as_it_is(Conv3d(in_channels, in_channels, (1, 1, 1))), self.conv

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, width, t, h, w)`."""
        out: Tensor = self.conv(x, time)
        return out if self.widen is None else self.widen(out, time)
