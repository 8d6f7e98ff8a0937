"""Layers of Video DC-AE (Open-Sora 2.0, arXiv 2503.09642, after DC-AE, arXiv 2410.10733).

Layout `b c t h w` throughout. Submodules are named so that the state dict of the autoencoder is the published one:
hence `op_list`, `main`, `aggreg` and the like.
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor, nn

HEAD_CHANNELS = 32
"""Channels of one attention head; the width of a stage with attention is a multiple of it."""


class RmsNorm(nn.Module):
    """Root mean square over channels set to 1 (computed in float32), then a weight and a bias per channel."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)`, same shape and type."""
        wide = x.float()
        normed = (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + self.eps)).to(x.dtype)
        return normed * rearrange(self.weight, "c -> c 1 1 1") + rearrange(self.bias, "c -> c 1 1 1")


class Conv(nn.Module):
    """Cubic convolution with zeros around all three axes, so that stride 1 keeps the size; optionally normed."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        groups: int = 1,
        bias: bool = True,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=bias
        )
        self.norm = RmsNorm(out_channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t', h', w')`."""
        out: Tensor = self.norm(self.conv(x))
        return out


class Chain(nn.Module):
    """Modules one after another."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        """What the last module makes of it."""
        for module in self.op_list:
            x = module(x)
        return x


class Residual(nn.Module):
    """`main(x) + shortcut(x)`; shortcuts have no parameters."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The shape that `main` and `shortcut` agree on."""
        out: Tensor = self.main(x) + self.shortcut(x)
        return out


class TwoConvs(nn.Module):
    """Main path of the residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = Conv(channels, channels, 3, bias=False, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)`, same shape."""
        out: Tensor = self.conv2(F.silu(self.conv1(x)))
        return out


class LinearAttention(nn.Module):
    """Attention over all positions at a cost linear in their number, with ReLU in place of softmax, at two scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 3 * channels
        self.qkv = Conv(channels, inner, 1, bias=False)
        coarse = nn.Sequential(
            nn.Conv3d(inner, inner, 5, padding=2, groups=inner, bias=False),
            nn.Conv3d(inner, inner, 1, groups=inner // HEAD_CHANNELS, bias=False),
        )
        self.aggreg = nn.ModuleList([coarse])
        self.proj = Conv(2 * channels, channels, 1, bias=False, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)`, same shape and type; the attention itself in float32: its sums run over every position."""
        _, _, t, h, w = x.shape
        qkv = self.qkv(x)
        scales = torch.cat([qkv, *(scale(qkv) for scale in self.aggreg)], dim=1).float()
        pattern = "b (heads part c) t h w -> part b heads c (t h w)"
        query, key, value = rearrange(scales, pattern, part=3, c=HEAD_CHANNELS)
        # A row of ones among the values sums the weights: the last row of the result is what the others are divided by.
        value = F.pad(value, (0, 0, 0, 1), value=1.0)
        summary = einsum(value, key.relu(), "b heads v n, b heads k n -> b heads v k")
        out = einsum(summary, query.relu(), "b heads v k, b heads k n -> b heads v n")
        out = out[:, :, :-1] / (out[:, :, -1:] + 1e-15)
        out = rearrange(out, "b heads c (t h w) -> b (heads c) t h w", t=t, h=h, w=w)
        projected: Tensor = self.proj(out.to(x.dtype))
        return projected


class GatedConvs(nn.Module):
    """Inverted bottleneck, depthwise in its middle, one half of which gates the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 8 * channels
        self.inverted_conv = Conv(channels, inner, 1)
        self.depth_conv = Conv(inner, inner, 3, groups=inner)
        self.point_conv = Conv(inner // 2, channels, 1, bias=False, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)`, same shape."""
        content, gate = self.depth_conv(F.silu(self.inverted_conv(x))).chunk(2, dim=1)
        out: Tensor = self.point_conv(content * F.silu(gate))
        return out


class AttentionBlock(nn.Module):
    """Attention for the context of the whole clip, then gated convolutions for detail."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(channels))
        self.local_module = Residual(GatedConvs(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)`, same shape."""
        out: Tensor = self.local_module(self.context_module(x))
        return out


class RepeatChannels(nn.Module):
    """Shortcut to more channels: each one several times in a row."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, c times, t, h, w)`."""
        return repeat(x, "b c t h w -> b (c times) t h w", times=self.times)


class AverageChannels(nn.Module):
    """Shortcut to fewer channels: the mean of each run of neighbours."""

    def __init__(self, run: int) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c run, t, h, w)` -> `(b, c, t, h, w)`."""
        return reduce(x, "b (c run) t h w -> b c t h w", "mean", run=self.run)


class ShrinkingShortcut(nn.Module):
    """Pixel unshuffle by 2, then the mean over runs of channels."""

    def __init__(self, in_channels: int, out_channels: int, temporal: bool) -> None:
        super().__init__()
        self.time_factor = 2 if temporal else 1
        self.average = AverageChannels(in_channels * 4 * self.time_factor // out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t', h / 2, w / 2)`."""
        pattern = "b c (t rt) (h rh) (w rw) -> b (c rt rh rw) t h w"
        out: Tensor = self.average(rearrange(x, pattern, rt=self.time_factor, rh=2, rw=2))
        return out


def growth_in_time(x: Tensor, temporal: bool) -> int:
    """Frames that an upsampler makes of one of `x` (b, c, t, h, w): a single frame stays single at every stage."""
    return 2 if temporal and x.shape[2] > 1 else 1


class GrowingShortcut(nn.Module):
    """Channels repeated in a row, then a pixel shuffle by 2."""

    def __init__(self, in_channels: int, out_channels: int, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.times_in_space = out_channels * 4 // in_channels

    def forward(self, x: Tensor) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t', 2 h, 2 w)`."""
        rt = growth_in_time(x, self.temporal)
        x = repeat(x, "b c t h w -> b (c times) t h w", times=self.times_in_space * rt)
        return rearrange(x, "b (c rt rh rw) t h w -> b c (t rt) (h rh) (w rw)", rt=rt, rh=2, rw=2)


class NearestConv(nn.Module):
    """Main path of the upsampler: every position repeated, then a convolution."""

    def __init__(self, in_channels: int, out_channels: int, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.conv = Conv(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t', 2 h, 2 w)`."""
        rt = growth_in_time(x, self.temporal)
        x = repeat(x, "b c t h w -> b c (t rt) (h rh) (w rw)", rt=rt, rh=2, rw=2)
        out: Tensor = self.conv(x)
        return out
