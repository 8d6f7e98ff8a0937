"""The head of Turbo-VAED with patch size 4 (arXiv 2508.09136): pixel shuffles by 2, one after the other."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from blocks.layers.convolutions import Conv3d
from blocks.layers.norms import RmsNorm
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext, to_video


@register_block("staged_pixel_shuffle_head", label="sps", role="head")
class StagedPixelShuffleHead(Block):
    """Norm, SiLU, convolution on every frame, shuffle by 2, as often as needed; then norm, SiLU, 3-D convolution."""

    input_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Size of all kernels, in time as well where the convolution is 3-D."""

    @classmethod
    def supports_factor(cls, spatial_factor: int) -> bool:
        """Powers of two from 2: one shuffle doubles height and width."""
        return spatial_factor >= 2 and spatial_factor & (spatial_factor - 1) == 0

    @classmethod
    def width_multiple(cls, spatial_factor: int) -> int:
        """All channels are shuffled, an equal share to each output position."""
        return spatial_factor**2

    def __init__(self, config: Config, in_channels: int, spatial_factor: int) -> None:
        super().__init__()
        if not self.supports_factor(spatial_factor):
            raise ValueError(f"{self.name}: the spatial factor must be a power of two from 2, got {spatial_factor}")
        multiple = self.width_multiple(spatial_factor)
        if in_channels % multiple:
            raise ValueError(
                f"{self.name}: {in_channels} channels cannot be shuffled by {spatial_factor}: "
                f"the width must be a multiple of {multiple}"
            )
        steps = spatial_factor.bit_length() - 1
        kernel = config.kernel_size
        widths = [in_channels // 4**step for step in range(steps + 1)]
        self.norm = RmsNorm()
        self.activation = nn.SiLU()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, kernel, padding=kernel // 2) for width in widths[:-1])
        self.conv_out = Conv3d(widths[-1], 3, (kernel, kernel, kernel))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b, 3, t, h s, w s)`, nominally in [-1, 1], not clamped."""
        for conv in self.convs:
            x = functional.pixel_shuffle(conv(self.activation(self.norm(x))), 2)
        out: Tensor = self.conv_out(self.activation(self.norm(to_video(x, time))), time)
        return out
