"""A head that predicts Haar wavelet bands, coarse colours and details apart (Cosmos' tokenizer, arXiv 2501.03575)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from blocks.layers.activations import ACTIVATIONS
from blocks.layers.norms import norm_before
from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext


@register_block("haar_head", label="haar", role="head")
class HaarHead(Block):
    """Norm, activation, 3x3 convolution C -> 3 s^2 bands on every frame, inverse Haar transforms to full size."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        norm: str = choice("rms", "none")
        """Norm before the convolution."""
        activation: str = choice("silu", "relu")
        """Activation before the convolution."""

    @classmethod
    def supports_factor(cls, spatial_factor: int) -> bool:
        """Powers of two from 2: one transform doubles height and width."""
        return spatial_factor >= 2 and spatial_factor & (spatial_factor - 1) == 0

    def __init__(self, config: Config, in_channels: int, spatial_factor: int) -> None:
        super().__init__()
        if not self.supports_factor(spatial_factor):
            raise ValueError(f"{self.name}: the spatial factor must be a power of two from 2, got {spatial_factor}")
        self.levels = spatial_factor.bit_length() - 1
        self.norm = norm_before(config.norm)
        self.activation = ACTIVATIONS[config.activation]()
        self.conv = nn.Conv2d(in_channels, 3 * spatial_factor**2, 3, padding=1)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t, 3, h s, w s)`, nominally in [-1, 1], not clamped."""
        x = self.conv(self.activation(self.norm(x)))
        for _ in range(self.levels):
            x = inverse_haar(x)
        return x


def inverse_haar(x: Tensor) -> Tensor:
    """Bands `(n, 4 c, h, w)`: mean, horizontal, vertical, diagonal detail, each of c channels -> `(n, c, 2 h, 2 w)`.

    Orthonormal: keeps the sum of squares.
    """
    mean, horizontal, vertical, diagonal = (x / 2).chunk(4, dim=1)
    left, right = mean + horizontal, mean - horizontal
    upper, lower = vertical + diagonal, vertical - diagonal
    pixels = torch.stack([left + upper, right + lower, left - upper, right - lower], dim=2)
    return functional.pixel_shuffle(rearrange(pixels, "n c p h w -> n (c p) h w"), 2)
