"""Norms over channels for `(b, c, ...)` tensors of any rank, without a transpose.

Statistics are per position, so a norm never mixes frames and streams exactly. The one exception is `BatchNorm` while it
is trained.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import handle_torch_function, has_torch_function_unary


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """`(b, c, ...)` divided by the root of the mean over channels of x^2 + eps, which is taken in float32.

    A `TorchFunctionMode` may compute it in another form, like a function of PyTorch.
    """
    if has_torch_function_unary(x):
        out: Tensor = handle_torch_function(rms_norm, (x,), x, eps)
        return out
    scale = torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + eps)
    return x * scale.to(x.dtype)


class RmsNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + eps), no weight (Turbo-VAED, arXiv 2508.09136).

    The statistic is taken in float32: in float16 a value above 256 overflows when squared, and eps is zero. Programs
    that are float16 throughout give loud inputs a factor instead: see `blocks.rewrites.scale_norms`.
    """

    factor = 1.0
    """Power of two that the input is first multiplied by, and eps by its square: the same function."""

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, ...)` to the same shape and dtype."""
        if self.factor != 1:
            x = x * self.factor
        return rms_norm(x, self.eps * self.factor**2)


class WeightedRmsNorm(RmsNorm):
    """The same times a weight per channel (Wan, arXiv 2503.20314)."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__(eps)
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, ...)` to the same shape and dtype."""
        return super().forward(x) * self.weight.view(-1, *[1] * (x.ndim - 2))


class ChannelLayerNorm(RmsNorm):
    """Layer norm over the channel axis: the RMS norm of what is centred, with weight and bias."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(eps)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, ...)` to the same shape and dtype."""
        wide = x.float()
        normed = super().forward(wide - wide.mean(dim=1, keepdim=True))
        per_channel = (-1, *[1] * (x.ndim - 2))
        return (normed * self.weight.float().view(per_channel) + self.bias.float().view(per_channel)).to(x.dtype)


class BatchNorm(_BatchNorm):
    """Batch norm for `(b, c, ...)`: in evaluation a scale and a shift per channel, which fold into a convolution.

    In training its statistics are those of the whole batch, frames and clips together (at least two values per
    channel), and are averaged for evaluation: a decoder in training mode neither streams nor treats clips apart.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank will do."""


def norm_before(norm: str) -> nn.Module:
    """The module before a convolution for the option "rms", "batch" or "none": RMS norm for the first, else nothing."""
    return RmsNorm() if norm == "rms" else nn.Identity()


def norm_after(norm: str, channels: int) -> nn.Module:
    """The module after a convolution for the same options: batch norm, which folds into it there, for "batch"."""
    return BatchNorm(channels) if norm == "batch" else nn.Identity()
