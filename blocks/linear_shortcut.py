"""A linear map from each latent to its patch of video, beside the decoder: the network only adds what is missing.

A global residual, as super-resolution networks have over their enlarged input (VDSR, arXiv 1511.04587), for latents:
least squares gives its weights in closed form, so a student starts where linear decoding ends.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from blocks.registry import BlockConfig, Shortcut, choice, register_block
from blocks.time_context import TimeContext

_RIDGE = 1e-4
"""Share of the mean squared feature that is added to each, so that few or constant latents have a solution, too."""


@register_block("linear_shortcut", label="linear", role="shortcut")
class LinearShortcut(Shortcut):
    """k x k convolution on every latent frame, C -> T * 3 * S^2 channels, moved into T frames and S x S pixels.

    A latent frame that becomes a single frame has statistics of its own and gets a convolution of its own.
    """

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        kernel_size: int = choice(3, 1)
        """Height and width of the kernels: 3 sees a latent's neighbours, too; 1 has a ninth of the weights."""

    def __init__(
        self, config: Config, in_channels: int, temporal_factor: int, spatial_factor: int, leading: bool
    ) -> None:
        super().__init__()
        self.temporal_factor = temporal_factor
        self.spatial_factor = spatial_factor
        kernel, colours = config.kernel_size, 3 * spatial_factor**2
        self.following = nn.Conv2d(in_channels, temporal_factor * colours, kernel, padding=kernel // 2)
        self.leading = nn.Conv2d(in_channels, colours, kernel, padding=kernel // 2) if leading else None

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, h, w)` -> `(b t', 3, h s, w s)`, nominally in [-1, 1], not clamped."""
        frames = self._to_frames(self.following(x), self.temporal_factor)
        if self.leading is None or not time.drops_leading:
            return frames
        first = self._to_frames(self.leading(time.first(x)), 1)
        return time.put_first(first, time.drop_leading(frames, self.temporal_factor))

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor]], *, drops_leading: bool) -> None:
        """Set the weights to the least-squares solution for pairs of latents and frames (see `Shortcut.fit`)."""
        first = None if self.leading is None else _LeastSquares(self.leading)
        later = _LeastSquares(self.following)
        for latents, frames in samples:
            if first is not None and drops_leading:
                first.add(latents[:, :, :1], self._to_patches(frames[:, :, :1], 1))
                latents, frames = latents[:, :, 1:], frames[:, :, 1:]
            later.add(latents, self._to_patches(frames, self.temporal_factor))
        if first is not None:
            first.solve()
        later.solve()

    def _to_frames(self, x: Tensor, count: int) -> Tensor:
        """`(n, count 3 s s, h, w)` -> `(n count, 3, h s, w s)`."""
        x = functional.pixel_shuffle(x, self.spatial_factor)
        return rearrange(x, "n (t c) h w -> (n t) c h w", t=count)

    def _to_patches(self, frames: Tensor, count: int) -> Tensor:
        """Inverse of `_to_frames` on `(b, 3, n count, h s, w s)`: `(b n, count 3 s s, h, w)`."""
        size = self.spatial_factor
        return rearrange(frames, "b c (n t) (h p) (w q) -> (b n) (t c p q) h w", t=count, p=size, q=size)


class _LeastSquares:
    """Accumulates the normal equations of one convolution, and solves them."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        inputs = conv.weight[0].numel() + 1
        self.gram = torch.zeros(inputs, inputs, dtype=torch.float64)
        self.moment = torch.zeros(inputs, conv.out_channels, dtype=torch.float64)

    def add(self, latents: Tensor, patches: Tensor) -> None:
        """`(b, c, t, h, w)` and `(b t, out, h, w)`."""
        if latents.shape[2] == 0:
            return
        x = rearrange(latents, "b c t h w -> (b t) c h w").double().cpu()
        kernel = self.conv.weight.shape[-1]
        columns = functional.unfold(x, kernel, padding=kernel // 2)
        rows = rearrange(functional.pad(columns, (0, 0, 0, 1), value=1.0), "n f p -> (n p) f")
        self.gram += rows.T @ rows
        self.moment += rows.T @ rearrange(patches.double().cpu(), "n o h w -> (n h w) o")

    def solve(self) -> None:
        """Write weight and bias of the convolution."""
        ridge = torch.full((len(self.gram),), _RIDGE * float(self.gram.diagonal()[:-1].mean()), dtype=torch.float64)
        ridge[-1] = 0.0
        solution = torch.linalg.lstsq(self.gram + ridge.diag(), self.moment, driver="gelsd").solution
        weight = rearrange(solution[:-1], "f o -> o f").reshape(self.conv.weight.shape)
        assert self.conv.bias is not None
        self.conv.weight.copy_(weight)
        self.conv.bias.copy_(solution[-1])
