"""Ordinary 3-D pixel shuffle: channels into time, height and width at once (LTX-Video, arXiv 2501.00103)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from blocks.layers.convolutions import PROJECTIONS, make_projection
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, register_block
from blocks.time_context import TimeContext, to_frames


@register_block("pixel_shuffle3d", label="ps3d", role="upsampler")
class PixelShuffle3d(Upsampler):
    """C -> C' (st s s) channels, each block of which becomes st frames of s x s pixels; no tensor above rank 5.

    The decoupled shuffle differs in the order of the channels, and returns frames.
    """

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        projection: str = choice(*PROJECTIONS)
        """Convolution that makes the channels (dense as published; pointwise is 27 times cheaper)."""
        skip: bool = choice(False, True)
        """Whether to add the input's channels, duplicated."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, skip=config.skip)
        self.conv = make_projection(config.projection, in_channels, self.expanded_channels)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, c', t', h s, w s)`."""
        expanded = self.with_skip(self.conv(x, time), x)
        clips, frames, channels = expanded.shape[0], expanded.shape[2], self.out_channels
        x = functional.pixel_shuffle(to_frames(expanded), self.spatial_factor)
        height, width = x.shape[-2:]
        # From here on whole frames move. A rearrangement of all axes at once is the same, but has eight of them, and
        # becomes seven transposes of single pixels in Core ML.
        x = x.reshape(clips, frames, channels, -1, width).transpose(1, 2)
        x = x.reshape(clips, channels, frames * self.temporal_factor, height, width)
        return time.drop_leading_video(x, self.temporal_factor - 1)
