"""The first convolution over latents, frame by frame (TAEHV)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks.layers.convolutions import as_it_is
from blocks.registry import Block, BlockConfig, choice, published, register_block
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
        limited: bool = published(False, True)
        """Whether latents are first brought to unit scale by a 1x1 convolution and limited by 3 tanh(x / 3) (TAEHV)."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        kernel = config.kernel_size
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.widen: nn.Conv2d | None = None
        if config.limited:
            self.conv, self.widen = as_it_is(nn.Conv2d(in_channels, in_channels, 1)), self.conv
        self.activation = nn.ReLU()

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t, width, h, w)`, values >= 0."""
        x = self.conv(x)
        if self.widen is not None:
            x = self.widen(3 * torch.tanh(x / 3))
        out: Tensor = self.activation(x)
        return out
