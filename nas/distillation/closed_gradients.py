"""Functions of parts whose gradient is written out: fewer passes over memory than autograd takes, nothing else."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """`blocks.layers.norms.rms_norm` for features that lie channels last; no float32 copy of `x` is kept."""
    out: Tensor = _RmsNorm.apply(x, eps)  # type: ignore[no-untyped-call]
    return out


def sum_branches(weight: Tensor, temporal: Tensor, spatial: Tensor, pointwise: Tensor, before: int) -> Tensor:
    """`blocks.layers.convolutions.sum_branches`, added up in place."""
    out: Tensor = _SumBranches.apply(weight, temporal, spatial, pointwise, before)  # type: ignore[no-untyped-call]
    return out


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        # Channels are few: in bfloat16 a run of them is too short for the vector unit where it meets one scale.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        scale = torch.rsqrt(norm.square() / x.shape[1] + eps)
        ctx.save_for_backward(x, scale)
        return (wide * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, scale = ctx.saved_tensors
        wide, gradient = x.to(scale.dtype), gradient.to(scale.dtype)
        along = torch.linalg.vecdot(gradient, wide, dim=1).unsqueeze(1) * scale.square() / -x.shape[1]
        return torch.addcmul(gradient, wide, along).mul_(scale).to(x.dtype), None


class _SumBranches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, temporal: Tensor, spatial: Tensor, pointwise: Tensor, before: int) -> Tensor:
        middle = weight.shape[3] // 2
        ctx.place = slice(before, before + 1), slice(middle, middle + 1)
        now, centre = ctx.place
        kernel = weight.clone()
        kernel[..., centre, centre] += temporal
        kernel[:, :, now] += spatial
        kernel[:, :, now, centre, centre] += pointwise
        return kernel

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        now, centre = ctx.place
        temporal, spatial = gradient[..., centre, centre], gradient[:, :, now]
        return gradient, temporal, spatial, gradient[:, :, now, centre, centre], None
