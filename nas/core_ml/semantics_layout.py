"""What the Core ML operations compute that move, repeat, drop or interpolate elements; see `semantics.py`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def _pad(x: Tensor, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    if not any(pad):
        return x
    if mode == "constant":
        return functional.pad(x, last_axis_first(pad), value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise ValueError(f"mode must be constant, reflect or replicate, got '{mode}'")
    # One axis after the other by index: PyTorch pads so only the last axes of some ranks.
    first = x.ndim - len(pad) // 2
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=first):
        index = torch.arange(-before, x.shape[axis] + after)
        last = x.shape[axis] - 1
        index = index.clamp(0, last) if mode == "replicate" else last - (last - index.abs()).abs()
        x = x.index_select(axis, index)
    return x


def last_axis_first(pad: list[int]) -> list[int]:
    """Padding for PyTorch: Core ML lists (before, after) from the first padded axis to the last."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    return [size for pair in reversed(pairs) for size in pair]


def _slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    none = [False] * x.ndim
    begin_mask, end_mask, squeeze_mask = begin_mask or none, end_mask or none, squeeze_mask or none
    squeezed = []
    for axis in range(x.ndim):
        if squeeze_mask[axis]:
            x = x.narrow(axis, begin[axis] % x.shape[axis], 1)
            squeezed.append(axis)
            continue
        start = None if begin_mask[axis] else begin[axis]
        stop = None if end_mask[axis] else end[axis]
        chosen = range(x.shape[axis])[slice(start, stop, stride[axis] if stride else 1)]
        if chosen != range(x.shape[axis]):
            x = x.index_select(axis, torch.tensor(chosen, dtype=torch.long))
    return x.squeeze(tuple(squeezed)) if squeezed else x


def _slice_by_size(x: Tensor, begin: list[int], size: list[int]) -> Tensor:
    for axis, (start, length) in enumerate(zip(begin, size, strict=True)):
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


def _concat(values: tuple[Tensor, ...], axis: int, interleave: bool = False) -> Tensor:
    if not interleave:
        return torch.cat(values, dim=axis)
    # One element of each in turn: what coremltools makes of stack and reshape.
    axis %= values[0].ndim
    return torch.stack(values, dim=axis + 1).flatten(axis, axis + 1)


def _reshape(x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def _expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is None:
        assert num_splits is not None
        split_sizes = [x.shape[axis] // num_splits] * num_splits
    return torch.split(x, split_sizes, dim=axis)


def _gather(
    x: Tensor, indices: Tensor | list[int] | int, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    if batch_dims:
        raise ValueError(f"batch_dims must be 0, got {batch_dims}")
    index = torch.as_tensor(indices, dtype=torch.long)
    index = torch.where(index < 0, index + x.shape[axis], index)
    axis %= x.ndim
    picked = x.index_select(axis, index.flatten())
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _upsample_nearest(x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    return functional.interpolate(x, size=_scaled(x, scale_factor_height, scale_factor_width), mode="nearest")


def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    if half_pixel_centers is None:
        half_pixel_centers = not align_corners
    if align_corners == half_pixel_centers:
        raise ValueError(
            f"of align_corners and half_pixel_centers one must be set, got {align_corners} and {half_pixel_centers}"
        )
    size = _scaled(x, scale_factor_height, scale_factor_width)
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def _scaled(x: Tensor, height: float, width: float) -> list[int]:
    return [int(x.shape[-2] * height), int(x.shape[-1] * width)]


def _crop(x: Tensor, crop_height: list[int], crop_width: list[int]) -> Tensor:
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _reverse(x: Tensor, axes: list[int] | None = None) -> Tensor:
    return x.flip(tuple(range(x.ndim)) if axes is None else axes)


def _tile(x: Tensor, reps: list[int]) -> Tensor:
    return x.repeat(reps)


def _transpose(x: Tensor, perm: list[int]) -> Tensor:
    return x.permute(perm)


def _stack(values: tuple[Tensor, ...], axis: int) -> Tensor:
    return torch.stack(values, dim=axis)


def _pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return functional.pixel_shuffle(x, upscale_factor)


def _pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return functional.pixel_unshuffle(x, downscale_factor)


LAYOUT: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "concat": _concat,
    "crop": _crop,
    "expand_dims": _expand_dims,
    "gather": _gather,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "reshape": _reshape,
    "reverse": _reverse,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
"""Functions that compute the operations, by Core ML's name of their type."""
