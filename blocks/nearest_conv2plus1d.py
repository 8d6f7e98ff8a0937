"""Time by a convolution over three frames, space by nearest neighbours and a 2-D convolution.

Used in the decoders of Wan (arXiv 2503.20314) and Flash-VAED (arXiv 2602.19161).
"""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from blocks.layers.convolutions import Conv3d, EnlargedConv2d, enlarge
from blocks.layers.upsampler import Upsampler
from blocks.registry import BlockConfig, choice, published, register_block
from blocks.time_context import TimeContext, to_frames

_LENGTH = 3
"""Frames under the kernel in time."""


@register_block("nearest_conv2plus1d", label="near21d", role="upsampler")
class NearestConv2plus1d(Upsampler):
    """(3, 1, 1) convolution C -> C st into time, enlarge each frame, 3x3 convolution to the new width."""

    output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        skip: bool = choice(False, True)
        """Whether to add the enlarged input, its channels duplicated or left out as the width demands."""
        first: str = published("grown", "kept")
        """The latent frame that becomes one frame: the last that grows out of it, or itself, unseen by the convolution
        in time (Wan, Flash-VAED)."""

    def __init__(
        self, config: Config, in_channels: int, out_channels: int, temporal_factor: int, spatial_factor: int
    ) -> None:
        super().__init__(out_channels, temporal_factor, spatial_factor, skip=config.skip)
        grows = temporal_factor > 1
        self.keeps_first = grows and config.first == "kept"
        self.grow = Conv3d(in_channels, in_channels * temporal_factor, (_LENGTH, 1, 1)) if grows else None
        self.conv = EnlargedConv2d(in_channels, out_channels, spatial_factor)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b t', c', h s, w s)`."""
        steps = self.temporal_factor
        out: Tensor = self.conv(self._refine(x, time))
        if not self.has_skip:
            return out
        repeated = time.drop_leading(to_frames(x).repeat_interleave(steps, dim=0), steps - 1)
        return self.with_skip(out, enlarge(repeated, self.spatial_factor))

    def _refine(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, c, t, h, w)` -> `(b t', c, h, w)`."""
        steps = self.temporal_factor
        if not (self.keeps_first and time.drops_leading):
            return time.drop_leading(_steps_to_frames(x if self.grow is None else self.grow(x, time), steps), steps - 1)
        assert self.grow is not None
        first, others = x[:, :, 0], x[:, :, 1:]
        if x.shape[2] == 1:
            time.pad(others, _LENGTH)  # nothing to convolve, but the next chunk asks for what was before
            return first
        return time.put_first(first, _steps_to_frames(self.grow(others, time), steps))


def _steps_to_frames(grown: Tensor, steps: int) -> Tensor:
    """`(b, steps c, t, h, w)` -> `(b t steps, c, h, w)`."""
    return rearrange(grown, "b (st c) t h w -> (b t st) c h w", st=steps)
