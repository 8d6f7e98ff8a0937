"""A head that leaves the last upsampling to one pixel shuffle, so nothing wide runs at full resolution (TAEHV)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from blocks.layers.activations import ACTIVATIONS
from blocks.layers.norms import norm_before
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("pixel_shuffle_head", label="ps", role="head")
class PixelShuffleHead(Block):
    """Norm, activation, k x k convolution C -> 3 s^2 on every frame, pixel shuffle by s."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3)
        """Height and width of the kernel."""
        norm: str = choice("rms", "none")
        """Norm before the convolution (none in TAEHV)."""
        activation: str = choice("silu", "relu")
        """Activation before the convolution (ReLU in TAEHV)."""

    def __init__(self, config: Config, in_channels: int, spatial_factor: int) -> None:
        super().__init__()
        self.spatial_factor = spatial_factor
        self.norm = norm_before(config.norm)
        self.activation = ACTIVATIONS[config.activation]()
        kernel = config.kernel_size
        self.conv = nn.Conv2d(in_channels, 3 * spatial_factor**2, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t, 3, h s, w s)`, nominally in [-1, 1], not clamped."""
        return functional.pixel_shuffle(self.conv(self.activation(self.norm(x))), self.spatial_factor)
