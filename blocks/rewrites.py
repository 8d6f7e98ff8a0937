"""Exact rewrites of finished parts for inference and export: the same function up to rounding, other operations.

Each takes any module that holds parts (a block, a whole decoder), changes it in place and says how many it changed.
State dicts change with it (but for `scale_norms`): rewrite after the weights are loaded.
"""

from collections.abc import Callable, Mapping
from math import frexp

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.layers.convolutions import BranchedConv, Conv3d, EnlargedConv2d
from blocks.layers.norms import BatchNorm, RmsNorm
from blocks.registry import Block
from blocks.time_context import TemporalMode, TimeContext, to_frames, to_video

_LOUD = 64.0
"""Largest input of a norm that is left as it is. At 256 the square overflows float16; other clips may be louder."""


def merge_branches(module: nn.Module, mode: TemporalMode) -> int:
    """Every convolution that is a sum of branches becomes one, for this temporal mode."""
    return _replace(module, BranchedConv, lambda conv: conv.merged(mode))


@torch.no_grad()
def fold_norms(module: nn.Module) -> int:
    """Every batch norm becomes part of the convolution before it; afterwards the module is for evaluation only."""
    count = 0
    for block in list(module.modules()):
        for conv_name, norm_name in block.normed if isinstance(block, Block) else ():
            conv, norm = getattr(block, conv_name), getattr(block, norm_name)
            if isinstance(norm, BatchNorm):
                _fold(conv, norm)
                setattr(block, norm_name, nn.Identity())
                count += 1
    return count


def subpixel_enlargements(module: nn.Module) -> int:
    """Every enlargement by 2 before a 3x3 convolution becomes four 2x2 convolutions before it, 2.25 times cheaper."""
    return _replace(module, EnlargedConv2d, SubpixelConv2d, lambda part: part.factor == 2)


def conv3d_as_slices(module: nn.Module) -> int:
    """Every 3-D convolution becomes a sum of 2-D ones, for devices without 3-D convolutions."""
    return _replace(module, Conv3d, SlicedConv3d)


def conv3d_as_joined_frames(module: nn.Module) -> int:
    """Every dense 3-D convolution over up to 3 frames becomes a 2-D one over frames that are joined with those around.

    This is the form in which `memory_conv2d` sees time. Depthwise and larger ones stay as they are.
    """
    return _replace(module, Conv3d, JoinedConv3d, lambda conv: conv.groups == 1 and conv.kernel_size[0] <= 3)


def scale_norms(module: nn.Module, largest: Mapping[str, float]) -> int:
    """Every norm of loud features scales them down before it squares them, for programs that are float16 throughout.

    By the largest power of two that brings them to `_LOUD`, no further: at quiet positions beside the loud ones the
    mean square must not fall below what float16 can hold (6e-8).

    Args:
        module: holds the norms.
        largest: the largest absolute value that a norm is given, by the norm's name in `module`.
    """
    loud = {name: value for name, value in largest.items() if value > _LOUD}
    for name, value in loud.items():
        norm = module.get_submodule(name)
        assert isinstance(norm, RmsNorm)
        norm.factor = 2.0 ** (frexp(_LOUD / value)[1] - 1)
    return len(loud)


class SubpixelConv2d(nn.Module):
    """Nearest 2x and a 3x3 convolution, computed at the small size.

    Of the nine pixels under the kernel at the large size, at most 2x2 are different: each of the four positions in a
    large pixel's cell has a 2x2 kernel of its own, made of sums of the nine weights.
    """

    def __init__(self, enlarged: EnlargedConv2d) -> None:
        super().__init__()
        conv = enlarged.conv
        # Rows (and columns) of the small image under the kernel: for the first large row those at -1 and 0, for the
        # second those at 0 and +1.
        first, second = [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        sums = torch.tensor([first, second]).to(conv.weight)
        weight = torch.einsum("pik,qjl,ockl->opqcij", sums, sums, conv.weight.detach())
        self.conv = nn.Conv2d(conv.in_channels, 4 * conv.out_channels, 2, bias=conv.bias is not None)
        self.conv.weight = nn.Parameter(weight.flatten(0, 2))
        if conv.bias is not None:
            self.conv.bias = nn.Parameter(conv.bias.detach().repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` -> `(n, c', 2 h, 2 w)`."""
        x = self.conv(functional.pad(x, (1, 1, 1, 1)))
        upper, lower = x[:, :, :-1], x[:, :, 1:]
        cells = [upper[:, 0::4, :, :-1], upper[:, 1::4, :, 1:], lower[:, 2::4, :, :-1], lower[:, 3::4, :, 1:]]
        return functional.pixel_shuffle(torch.stack(cells, dim=2).flatten(1, 2), 2)


class SlicedConv3d(nn.Module):
    """A 3-D convolution as a sum of 2-D ones, one per frame under its kernel."""

    def __init__(self, conv: Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.padding, self.groups = conv.padding[1:], conv.groups

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        out: Tensor | None = None
        for frames, weight in zip(_neighbours(x, self.weight.shape[2], time), self.weight.unbind(2), strict=True):
            bias = self.bias if out is None else None
            part = functional.conv2d(frames, weight, bias, padding=self.padding, groups=self.groups)
            out = part if out is None else out + part
        assert out is not None
        return to_video(out, time)


class JoinedConv3d(nn.Module):
    """A dense 3-D convolution as a 2-D one over the channels of all frames under its kernel."""

    def __init__(self, conv: Conv3d) -> None:
        super().__init__()
        self.frames, height, width = conv.kernel_size
        padding = height // 2, width // 2
        self.conv = nn.Conv2d(self.frames * conv.in_channels, conv.out_channels, (height, width), padding=padding)
        self.conv.weight = nn.Parameter(conv.weight.detach().transpose(1, 2).flatten(1, 2).contiguous())
        self.conv.bias = conv.bias

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b, in, t, h, w)` -> `(b, out, t, h, w)`."""
        return to_video(self.conv(torch.cat(_neighbours(x, self.frames, time), dim=1)), time)


def _neighbours(x: Tensor, count: int, time: TimeContext) -> list[Tensor]:
    """`(b, c, t, h, w)` -> `(b t, c, h, w)` for every frame under a kernel of `count` frames."""
    padded, frames = time.pad(x, count), x.shape[2]
    return [to_frames(padded[:, :, start : start + frames]) for start in range(count)]


def _fold(conv: nn.Conv2d | nn.Conv3d, norm: BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    conv.weight.mul_(scale.view(-1, *[1] * (conv.weight.ndim - 1)))
    conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)


def _replace(
    module: nn.Module,
    replaced: type[nn.Module],
    make: Callable[..., nn.Module],
    applies: Callable[..., bool] = lambda part: True,
) -> int:
    """Replace every module of exactly this class by what `make` makes of it."""
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is replaced and applies(child):
                setattr(parent, name, make(child).train(child.training))
                count += 1
    return count
