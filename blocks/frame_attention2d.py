"""Attention over the positions of each frame, in the middle of Wan (arXiv 2503.20314) and Flash-VAED (2602.19161)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from blocks.layers.norms import RmsNorm, WeightedRmsNorm
from blocks.registry import Block, BlockConfig, choice, published, register_block
from blocks.time_context import TimeContext


@register_block("frame_attention2d", label="attn2d")
class FrameAttention2d(Block):
    """RMS norm, attention over all h w positions of a frame, plus the input; `(b t, c, h, w)`.

    Its cost grows with the square of h w: meant for the resolution of the latents.
    """

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        heads: int = choice(1, 4)
        """Number of attention heads (1 as published); the width must be a multiple of it."""
        weighted: bool = published(False, True)
        """Whether the norm has a weight per channel (Wan, Flash-VAED)."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels % config.heads:
            raise ValueError(f"{self.name}: {in_channels} channels cannot be shared by {config.heads} heads")
        self.heads = config.heads
        self.norm = WeightedRmsNorm(in_channels) if config.weighted else RmsNorm()
        self.to_qkv = nn.Conv2d(in_channels, 3 * in_channels, 1)
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, in, h, w)` -> `(b t, out, h, w)`."""
        height = x.shape[2]
        query, key, value = rearrange(
            self.to_qkv(self.norm(x)), "n (qkv heads c) h w -> qkv (n heads) c (h w)", qkv=3, heads=self.heads
        ).unbind()
        # Scaled before the product: in float16 the sum over channels would overflow first.
        scores = torch.bmm((query * query.shape[1] ** -0.5).transpose(1, 2), key)
        mixed = torch.bmm(value, scores.softmax(dim=-1).transpose(1, 2))
        mixed = rearrange(mixed, "(n heads) c (h w) -> n (heads c) h w", heads=self.heads, h=height)
        out: Tensor = self.skip(x) + self.project(mixed)
        return out
