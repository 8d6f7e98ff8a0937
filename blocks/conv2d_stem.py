"""The first convolution over latents, frame by frame (TAEHV)."""

from dataclasses import dataclass

from torch import Tensor, nn

from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("conv2d_stem", label="stem2d", role="stem")
class Conv2dStem(Block):
    """k x k convolution and ReLU on every latent frame."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Height and width of the kernel."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, config.kernel_size, padding=config.kernel_size // 2)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t, width, h, w)`, values >= 0."""
        out: Tensor = self.activation(self.conv(x))
        return out
