"""The same functions by other operations, which a CPU computes several times faster, forward and backward.

Modules, weights and state dicts stay as they are: what a module asks of PyTorch is answered in another form while
`training_forms` lasts. The rules are fixed, so that a run that is repeated gives the same weights; nothing is timed.
They come from measurements with oneDNN on x86 (docs/results.md):

- Features lie channels last, their gradients too: oneDNN need not reorder them, and frames and videos are views of each
  other.
- Depthwise convolutions are computed in float32, under autocast too, one 2-D convolution per frame under the kernel.
- Dense 3-D convolutions stay what they are in bfloat16. In float32 they become one 2-D convolution over the channels of
  all frames under the kernel.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from blocks import Block
from blocks.layers import convolutions, norms
from nas.distillation.closed_gradients import rms_norm, sum_branches
from nas.distillation.frame_convolutions import (
    channels_last,
    depthwise_conv3d,
    joined_conv3d,
    narrow,
    scaled_channels,
)
from nas.machine.device import has_onednn


@contextmanager
def training_forms(module: nn.Module, device: torch.device) -> Iterator[None]:
    """While it lasts, `module` computes in the forms that are fastest on `device`; on a GPU nothing changes.

    Args:
        module: holds parts (`blocks.Block`); whatever else is called meanwhile has the same convolutions.
        device: where it computes. Without oneDNN a CPU keeps the plain forms, too.
    """
    parts = [part for part in module.modules() if isinstance(part, Block)] if has_onednn(device) else []
    hooks = [part.register_forward_pre_hook(_channels_last_input) for part in parts]
    try:
        with fast_functions(device):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def fast_functions(device: torch.device) -> AbstractContextManager[object]:
    """`training_forms` for what is given features that lie as they should already."""
    return _Forms() if has_onednn(device) else nullcontext()


def _channels_last_input(part: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (channels_last(args[0]), *args[1:])


class _Forms(TorchFunctionMode):
    """Answers a few functions of PyTorch in another form. Within an answer PyTorch is itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        return _FORMS.get(func, func)(*args, **(kwargs or {}))


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if x.ndim == 4 and _is_depthwise(x, weight, groups) and _is_plain(stride, dilation, padding):
        if weight[0].numel() == 1 and not any(_each(padding, 2)):
            return scaled_channels(x, weight, bias)
        frame = depthwise_conv3d(x[:, :, None], weight[:, :, None], bias, _each(padding, 2))
        return frame[:, :, 0]
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    known = x.ndim == 5 and _is_plain(stride, dilation, padding) and _each(padding, 3)[0] == 0
    if known and _is_depthwise(x, weight, groups):
        if weight[0].numel() == 1 and not any(_each(padding, 3)):
            return scaled_channels(x, weight, bias)
        return depthwise_conv3d(x, weight, bias, _each(padding, 3)[1:])
    if known and groups == 1 and _computed_dtype(x) not in (torch.bfloat16, torch.float16):
        return joined_conv3d(x, weight, bias, _each(padding, 3)[1:])
    if x.ndim == 5:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    return functional.conv3d(x, weight, bias, stride, padding, dilation, groups)


def _pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """By 1 nothing is shuffled, though PyTorch would copy."""
    return x if factor == 1 else functional.pixel_shuffle(x, factor)


def _getitem(x: Tensor, index: Any) -> Any:
    """Runs of frames or channels, whose gradient PyTorch would not keep channels last; all else as ever."""
    slices = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(each, slice) and each.step is None for each in slices):
        return x[index]
    for dim, each in enumerate(slices):
        start, stop, _ = each.indices(x.shape[dim])
        if stop - start != x.shape[dim]:
            x = narrow(x, dim, start, max(0, stop - start))
    return x


_FORMS: dict[Any, Callable[..., Any]] = {
    functional.conv2d: _conv2d,
    functional.conv3d: _conv3d,
    norms.rms_norm: rms_norm,
    convolutions.sum_branches: sum_branches,
    functional.pixel_shuffle: _pixel_shuffle,
    Tensor.narrow: narrow,
    Tensor.__getitem__: _getitem,
}


def _each(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _is_plain(stride: Any, dilation: Any, padding: Any) -> bool:
    """Stride and dilation 1, padding in numbers."""
    return {*_each(stride, 1), *_each(dilation, 1)} == {1} and not isinstance(padding, str)


def _is_depthwise(x: Tensor, weight: Tensor, groups: int) -> bool:
    return groups > 1 and groups == x.shape[1] == weight.shape[0]


def _computed_dtype(x: Tensor) -> torch.dtype:
    """What a convolution of `x` is computed in and gives."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
