"""Convolutions that take their frames before and after from the time context."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

from blocks.time_context import TemporalMode, TimeContext, time_padding

_SINGLE_FRAMES: ContextVar[bool] = ContextVar("single_frames", default=False)


@contextmanager
def single_frames() -> Iterator[None]:
    """While it lasts, convolutions are built with kernels of length 1: for latents that are images, not videos."""
    token = _SINGLE_FRAMES.set(True)
    try:
        yield
    finally:
        _SINGLE_FRAMES.reset(token)


class Conv3d(nn.Conv3d):
    """Dense or depthwise 3-D convolution, stride 1: zeros around each frame, `TimeContext.pad` in time.

    Within `single_frames` its kernel is 1 long.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int, int], groups: int = 1) -> None:
        length, height, width = kernel_size
        kernel = (1 if _SINGLE_FRAMES.get() else length), height, width
        super().__init__(in_channels, out_channels, kernel, padding=(0, height // 2, width // 2), groups=groups)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:  # type: ignore[override]
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        return super().forward(time.pad(x, self.kernel_size[0]))


class DenseConv(nn.Module):
    """Dense convolution, k x k x k."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, (kernel_size, kernel_size, kernel_size))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        out: Tensor = self.conv(x, time)
        return out


class DepthwiseSeparableConv(nn.Module):
    """Depthwise k x k x k, then 1x1x1, both with bias (Turbo-VAED, arXiv 2508.09136)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = Conv3d(in_channels, in_channels, (kernel_size, kernel_size, kernel_size), groups=in_channels)
        self.pointwise = Conv3d(in_channels, out_channels, (1, 1, 1))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        out: Tensor = self.pointwise(self.depthwise(x, time), time)
        return out


class FactorizedConv(nn.Module):
    """(1, k, k) in space, then (3, 1, 1) in time, as in Cosmos' tokenizer (arXiv 2501.03575).

    Args:
        rank: channels between, as a share of `out_channels`: below 1 a kernel whose unfolding has a low rank.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, rank: float = 1.0) -> None:
        super().__init__()
        inner = max(1, round(rank * out_channels))
        # A kernel of 1 asks for a change of width only (the skip connection of a residual block).
        temporal_kernel = 3 if kernel_size > 1 else 1
        self.spatial = Conv3d(in_channels, inner, (1, kernel_size, kernel_size))
        self.temporal = Conv3d(inner, out_channels, (temporal_kernel, 1, 1))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        out: Tensor = self.temporal(self.spatial(x, time), time)
        return out


class BranchedConv(Conv3d):
    """k x k x k with branches k x 1 x 1, 1 x k x k and 1 x 1 x 1 that see the current frame, summed as kernels.

    A sum of convolutions is the convolution with the sum of their kernels, so it costs what one does, in training too,
    and becomes a plain one exactly (`merged`). As in OREPA (arXiv 2204.00826); RepVGG sums the outputs.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, (kernel_size, kernel_size, kernel_size))
        # The branches start at zero: at first this is the plain convolution.
        self.temporal = nn.Parameter(torch.zeros(out_channels, in_channels, self.kernel_size[0], 1, 1))
        self.spatial = nn.Parameter(torch.zeros(out_channels, in_channels, 1, kernel_size, kernel_size))
        self.pointwise = nn.Parameter(torch.zeros(out_channels, in_channels, 1, 1, 1))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:  # type: ignore[override]
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        x = time.pad(x, self.kernel_size[0])
        return functional.conv3d(x, self.kernel(time.mode), self.bias, padding=self.padding)

    def kernel(self, mode: TemporalMode) -> Tensor:
        """The sum of all kernels. Which of them meets the current frame depends on the mode."""
        before = time_padding(self.kernel_size[0], mode)[0]
        return sum_branches(self.weight, self.temporal, self.spatial, self.pointwise, before)

    @torch.no_grad()
    def merged(self, mode: TemporalMode) -> Conv3d:
        """One plain convolution that does the same in this temporal mode."""
        plain = Conv3d(self.in_channels, self.out_channels, self.kernel_size)  # type: ignore[arg-type]
        plain.weight, plain.bias = nn.Parameter(self.kernel(mode).detach().clone()), self.bias
        return plain.train(self.training)


def sum_branches(weight: Tensor, temporal: Tensor, spatial: Tensor, pointwise: Tensor, before: int) -> Tensor:
    """Kernels `(out, in, k, k, k)`, `(.., k, 1, 1)`, `(.., 1, k, k)` and `(.., 1, 1, 1)`, the small ones put in place.

    `before` is the number of frames in front of the current one. A `TorchFunctionMode` may compute it in another form.
    """
    kernels = weight, temporal, spatial, pointwise
    if has_torch_function(kernels):
        out: Tensor = handle_torch_function(sum_branches, kernels, *kernels, before)
        return out
    now = [before, weight.shape[2] - 1 - before]
    aside = [weight.shape[3] // 2] * 4
    return (
        weight
        + functional.pad(temporal, aside)
        + functional.pad(spatial, [0] * 4 + now)
        + functional.pad(pointwise, aside + now)
    )


C = TypeVar("C", nn.Conv2d, Conv3d)


def as_it_is(conv: C) -> C:
    """A convolution that begins with giving its input."""
    nn.init.dirac_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class EnlargedConv2d(nn.Module):
    """Nearest-neighbour enlargement of each frame by a factor, then 3x3."""

    def __init__(self, in_channels: int, out_channels: int, factor: int, bias: bool = True) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in, h, w)` -> `(n, out, h s, w s)`."""
        out: Tensor = self.conv(enlarge(x, self.factor))
        return out


def enlarge(x: Tensor, factor: int) -> Tensor:
    """`(n, c, h, w)` -> `(n, c, h s, w s)`, every pixel repeated."""
    return functional.interpolate(x, scale_factor=float(factor), mode="nearest") if factor > 1 else x


PROJECTIONS = ("dense", "separable", "pointwise")
"""Convolutions with which an upsampler makes its channels: 3x3x3, depthwise 3x3x3 + 1x1x1, 1x1x1."""


def make_projection(projection: str, in_channels: int, out_channels: int) -> DenseConv | DepthwiseSeparableConv:
    """One of `PROJECTIONS`: `(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
    if projection == "separable":
        return DepthwiseSeparableConv(in_channels, out_channels, 3)
    return DenseConv(in_channels, out_channels, 3 if projection == "dense" else 1)
