"""Convolutions that take their frames before and after from the time context."""

from torch import Tensor, nn

from blocks.time_context import TimeContext


class Conv3d(nn.Conv3d):
    """Dense or depthwise 3-D convolution, stride 1: zeros around each frame, `TimeContext.pad` in time."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int, int], groups: int = 1) -> None:
        _, height, width = kernel_size
        super().__init__(in_channels, out_channels, kernel_size, padding=(0, height // 2, width // 2), groups=groups)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:  # type: ignore[override]
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        return super().forward(time.pad(x, self.kernel_size[0]))


class DenseConv(nn.Module):
    """k x k x k."""

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
    """(1, k, k) in space, then (3, 1, 1) in time, as in Cosmos' tokenizer."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        # A kernel of 1 asks for a change of width only (the shortcut of a residual block).
        temporal_kernel = 3 if kernel_size > 1 else 1
        self.spatial = Conv3d(in_channels, out_channels, (1, kernel_size, kernel_size))
        self.temporal = Conv3d(out_channels, out_channels, (temporal_kernel, 1, 1))

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        out: Tensor = self.temporal(self.spatial(x, time), time)
        return out
