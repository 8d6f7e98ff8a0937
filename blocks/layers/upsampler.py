"""What all upsamplers have: factors in time and space, and as an option a skip connection of duplicated channels."""

from torch import Tensor

from blocks.registry import Block


class Upsampler(Block):
    """Features to a grid that is `temporal_factor` and `spatial_factor` times finer.

    The skip connection has no parameters: the input's channels, repeated or left out as the width demands, are moved
    into space and time like the new ones (DC-AE, arXiv 2410.10733; Wan 2.2).

    Args:
        out_channels: channels of the output, on the finer grid.
        temporal_factor: frames out per frame in.
        spatial_factor: height and width out per height and width in.
        skip: whether there is a skip connection.
    """

    def __init__(self, out_channels: int, temporal_factor: int, spatial_factor: int, *, skip: bool) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        self.has_skip = skip

    @property
    def expanded_channels(self) -> int:
        """Channels of which each output position takes its share."""
        return self.out_channels * self.temporal_factor * self.spatial_factor**2

    def with_skip(self, x: Tensor, source: Tensor) -> Tensor:
        """`(b, c, ...)`, with a skip connection plus the channels of `source`, `(b, any, ...)` on the same grid."""
        return x + duplicate_channels(source, x.shape[1]) if self.has_skip else x


def duplicate_channels(x: Tensor, channels: int) -> Tensor:
    """`(b, c, ...)` -> `(b, channels, ...)`: each channel repeated side by side, what is too many left out."""
    have = x.shape[1]
    if have < channels:
        x = x.repeat_interleave(-(-channels // have), dim=1)
    return x[:, :channels]
