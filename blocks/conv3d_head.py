"""The plain head: norm, activation, dense convolution to RGB (Turbo-VAED with patch size 1, arXiv 2508.09136)."""

from dataclasses import dataclass

from torch import Tensor, nn

from blocks.layers.convolutions import Conv3d
from blocks.layers.norms import RmsNorm, WeightedRmsNorm
from blocks.registry import Block, BlockConfig, choice, published, register_block
from blocks.time_context import TimeContext


@register_block("conv3d_head", label="conv", role="head")
class Conv3dHead(Block):
    """Features at full resolution -> RGB."""

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Length, height and width of the kernel."""
        weighted: bool = published(False, True)
        """Whether the norm has a weight per channel (Wan, Flash-VAED)."""

    @classmethod
    def supports_factor(cls, spatial_factor: int) -> bool:
        """Only 1: this head does not upsample."""
        return spatial_factor == 1

    def __init__(self, config: Config, in_channels: int, spatial_factor: int) -> None:
        super().__init__()
        if not self.supports_factor(spatial_factor):
            raise ValueError(f"{self.name} does not upsample: its spatial factor must be 1, got {spatial_factor}")
        self.norm = WeightedRmsNorm(in_channels) if config.weighted else RmsNorm()
        self.activation = nn.SiLU()
        kernel = config.kernel_size
        self.conv = Conv3d(in_channels, 3, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, 3, t, h, w)`, nominally in [-1, 1], not clamped."""
        out: Tensor = self.conv(self.activation(self.norm(x)), time)
        return out
