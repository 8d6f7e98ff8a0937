"""Dense 3-D convolutions as 2-D ones, which oneDNN computes about four times faster on a CPU, for any model as it is.

A model's modules and weights stay what they are: what they ask of PyTorch is answered in another form, which gives the
same numbers up to rounding. Without gradients; students are trained in forms of their own
(`nas.distillation.training_forms`). Axis letters: b batch, c channels, t frames, h height, w width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nas.machine.device import has_onednn

MOST_JOINED = 2**26
"""Bytes of the frames under the kernel that are joined at once. Where one frame needs more, memory takes the time, and
the convolution stays as it is."""


@contextmanager
def fast_convolutions(device: torch.device) -> Iterator[None]:
    """While it lasts, dense float32 3-D convolutions of this thread are computed frame by frame, without gradients.

    Args:
        device: where they are computed. Only a CPU with oneDNN is faster so; elsewhere nothing changes.
    """
    with torch.no_grad():
        if not has_onednn(device):
            yield
            return
        with _ByFrames():
            yield


class _ByFrames(TorchFunctionMode):
    """Within an answer PyTorch is itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        return (_conv3d if func is functional.conv3d else func)(*args, **(kwargs or {}))


def _conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    def as_it_is() -> Tensor:
        return functional.conv3d(x, weight, bias, stride, padding, dilation, groups)

    known = x.ndim == 5 and x.dtype == torch.float32 and groups == 1 and not isinstance(padding, str)
    if not known or torch.is_autocast_enabled("cpu"):
        return as_it_is()
    (stride_t, *stride_s), (padding_t, *padding_s), (dilation_t, *dilation_s) = map(_three, (stride, padding, dilation))
    length = weight.shape[2]
    count = (x.shape[2] + 2 * padding_t - dilation_t * (length - 1) - 1) // stride_t + 1
    joined = length * x[:, :, :1].nbytes
    if count < 1 or joined > MOST_JOINED:
        return as_it_is()  # which says what is wrong, if something is
    x = functional.pad(x, (0, 0, 0, 0, padding_t, padding_t)) if padding_t else x
    video, kernel = x.contiguous(memory_format=torch.channels_last_3d), weight.transpose(1, 2).flatten(1, 2)
    at_once = MOST_JOINED // max(1, joined)
    found = []
    for begin in range(0, count, at_once):
        end = min(begin + at_once, count)
        under = [
            video[
                :, :, dilation_t * place + stride_t * begin : dilation_t * place + stride_t * (end - 1) + 1 : stride_t
            ]
            for place in range(length)
        ]
        frames = (torch.cat(under, dim=1) if length > 1 else under[0]).transpose(1, 2).flatten(0, 1)
        out = functional.conv2d(frames, kernel, bias, stride_s, padding_s, dilation_s)
        found.append(out.view(len(x), -1, *out.shape[1:]).transpose(1, 2))
    return found[0] if len(found) == 1 else torch.cat(found, dim=2)


def _three(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)
