"""Convolutions over videos by 2-D convolutions over their frames, with gradients that stay channels last.

Axis letters: b batch, c channels, t frames, h height, w width. A video that lies channels last is one of frames that
do, so to go from one to the other moves nothing (with one clip in the batch). Left to autograd the gradient of each run
of frames would be a new, contiguous tensor of zeros; here they are added up in place.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_REDUCED = (torch.bfloat16, torch.float16)


def channels_last(x: Tensor) -> Tensor:
    """The same values in memory order `(b, t, h, w, c)` or `(b, h, w, c)`, and so their gradient."""
    out: Tensor = _ChannelsLast.apply(x)  # type: ignore[no-untyped-call]
    return out


def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`Tensor.narrow`, whose gradient keeps the memory order."""
    if not x.requires_grad:
        return x.narrow(dim, start, length)
    out: Tensor = _Narrow.apply(x, dim, start, length)  # type: ignore[no-untyped-call]
    return out


def depthwise_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
    """Depthwise convolution in at least float32: `(b, c, t + k - 1, h, w)` -> `(b, c, t, h, w)`.

    Args:
        x: with all frames that the kernel needs around.
        weight: `(c, 1, k, height, width)`.
        bias: `(c,)`, or none.
        padding: zeros above and below, and left and right, of each frame.
    """
    out: Tensor = _DepthwiseConv3d.apply(x, weight, bias, padding)  # type: ignore[no-untyped-call]
    return out


def joined_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
    """Dense convolution over the channels of all frames under the kernel; otherwise as `depthwise_conv3d`.

    The weight is `(out, c, k, height, width)`, the result `(b, out, t, h, w)`.
    """
    out: Tensor = _JoinedConv3d.apply(x, weight, bias, padding)  # type: ignore[no-untyped-call]
    return out


def scaled_channels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise convolution with a kernel of 1: each channel times a weight plus a bias."""
    per_channel = (-1, *[1] * (x.ndim - 2))
    scaled = x * weight.view(per_channel)
    out = scaled if bias is None else scaled + bias.view(per_channel)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return out.to(dtype)


def _order(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last


def _ordered(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_order(x))


def _frames(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def _video(x: Tensor, batch: int) -> Tensor:
    return x.view(batch, -1, *x.shape[1:]).transpose(1, 2)


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _ordered(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _ordered(gradient)


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, start: int, length: int) -> Tensor:
        dim %= x.ndim
        around = [start, x.shape[dim] - start - length]
        ctx.padding = [0, 0] * (x.ndim - 1 - dim) + around
        return x.narrow(dim, start, length)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return functional.pad(gradient, ctx.padding), None, None, None


class _DepthwiseConv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        wide = torch.float32 if dtype in _REDUCED else dtype
        with torch.autocast("cpu", enabled=False):
            video, kernels = _ordered(x.to(wide)), weight.to(wide)
            ctx.save_for_backward(video, kernels)
            ctx.padding, ctx.dtypes = padding, (x.dtype, weight.dtype, None if bias is None else bias.dtype)
            count, channels = x.shape[2] - weight.shape[2] + 1, x.shape[1]
            total = None if bias is None else bias.to(wide)
            for start, kernel in enumerate(kernels.unbind(2)):
                frames = _frames(video[:, :, start : start + count])
                first = start == 0
                part = functional.conv2d(frames, kernel, total if first else None, padding=padding, groups=channels)
                total = part if total is None or first else total.add_(part)
            assert total is not None
            return _video(total.to(dtype), x.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        video, kernels = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        gradient = _ordered(gradient.to(video.dtype))
        count, channels = gradient.shape[2], gradient.shape[1]
        into_video, into_kernels, into_bias = torch.zeros_like(video) if needs_x else None, [], None
        for start, kernel in enumerate(kernels.unbind(2)):
            frames = _frames(video[:, :, start : start + count])
            needed = [needs_x, needs_weight, needs_bias and start == 0]
            found = _gradients(_frames(gradient), frames, kernel, ctx.padding, channels, needed)
            if into_video is not None:
                into_video[:, :, start : start + count] += _video(found[0], video.shape[0])
            into_kernels.append(found[1])
            into_bias = found[2] if start == 0 else into_bias
        x_dtype, weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if into_video is None else into_video.to(x_dtype),
            torch.stack(into_kernels, dim=2).to(weight_dtype) if needs_weight else None,
            None if into_bias is None else into_bias.to(bias_dtype),
            None,
        )


class _JoinedConv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
        video, length = _ordered(x), weight.shape[2]
        count = x.shape[2] - length + 1
        if length > 1:
            video = torch.cat([video[:, :, start : start + count] for start in range(length)], dim=1)
        kernel = weight.transpose(1, 2).flatten(1, 2)
        frames = _frames(video)
        ctx.save_for_backward(frames, kernel)
        ctx.padding, ctx.batch, ctx.length = padding, x.shape[0], length
        return _video(functional.conv2d(frames, kernel, bias, padding=padding), x.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        frames, kernel = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:3])
        joined, into_kernel, into_bias = _gradients(_frames(_ordered(gradient)), frames, kernel, ctx.padding, 1, needs)
        video_gradient = _separate(_video(joined, ctx.batch), ctx.length) if needs[0] else None
        weight_gradient = into_kernel.unflatten(1, (ctx.length, -1)).transpose(1, 2) if needs[1] else None
        return video_gradient, weight_gradient, into_bias if needs[2] else None, None


def _separate(joined: Tensor, length: int) -> Tensor:
    """Gradient of the joined frames `(b, length c, t, h, w)` -> of the video `(b, c, t + length - 1, h, w)`."""
    if length == 1:
        return joined
    parts = joined.chunk(length, dim=1)
    batch, channels, count, height, width = parts[0].shape
    shape = (batch, channels, count + length - 1, height, width)
    video = torch.zeros(shape, dtype=joined.dtype).contiguous(memory_format=torch.channels_last_3d)
    for start, part in enumerate(parts):
        video[:, :, start : start + count] += part
    return video


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...], groups: int, needed: list[bool]
) -> tuple[Any, Any, Any]:
    """Gradients of a 2-D convolution: of input, weight and bias, each if it is needed."""
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, [weight.shape[0]], (1, 1), padding, (1, 1), False, (0, 0), groups, needed
    )
    return found[0], found[1], found[2]
