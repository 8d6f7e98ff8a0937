"""What each Core ML operation computes, in PyTorch.

Every function has the parameter names of Core ML's operation (MIL, iOS 18) and its defaults where a program may leave
one out. Tensors come as float32, whatever their type in the program; numbers, words and lists as Python's own.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from nas.core_ml.semantics_layout import LAYOUT, last_axis_first

Semantics = Callable[..., Tensor | tuple[Tensor, ...]]
Number = float | Tensor

_TORCH_TYPES = {"fp16": torch.float32, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}
"""Types that a cast gives here. The interpreter rounds to float16, unless it is asked not to."""


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    axes = x.ndim - 2
    strides, dilations = strides or [1] * axes, dilations or [1] * axes
    if pad_type == "same":
        pad = _same_padding(x, weight, strides, dilations)
    elif pad_type == "valid":
        pad = [0] * (2 * axes)
    elif pad_type != "custom":
        raise ValueError(f"pad_type must be valid, same or custom, got '{pad_type}'")
    assert pad is not None
    if any(pad):
        x = functional.pad(x, last_axis_first(pad))
    convolve: Callable[..., Tensor] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[axes]
    return convolve(x, weight, bias, stride=strides, dilation=dilations, groups=groups)


def _same_padding(x: Tensor, weight: Tensor, strides: list[int], dilations: list[int]) -> list[int]:
    """Outputs are ceil(input / stride) long; of an odd number of zeros the greater half comes after."""
    pad = []
    for size, kernel, stride, dilation in zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
        pad += [total // 2, total - total // 2]
    return pad


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
    output_shape: list[int] | None = None,
) -> Tensor:
    axes = x.ndim - 2
    strides, dilations = strides or [1] * axes, dilations or [1] * axes
    if pad_type not in ("valid", "custom"):
        raise ValueError(f"pad_type must be valid or custom, got '{pad_type}'")
    transposed = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
    convolve: Callable[..., Tensor] = transposed[axes]
    pad = pad if pad_type == "custom" and pad is not None else [0] * (2 * axes)
    # Padding says how much is cut off; an output shape beyond that asks for more at the end.
    out = convolve(x, weight, bias, stride=strides, dilation=dilations, groups=groups)
    for axis in range(axes):
        before, after = pad[2 * axis], pad[2 * axis + 1]
        size = out.shape[axis + 2] - before - after if output_shape is None else output_shape[axis + 2]
        missing = before + size - out.shape[axis + 2]
        if missing > 0:
            raise ValueError(f"output_shape {output_shape} is {missing} larger than what the inputs reach")
        out = out.narrow(axis + 2, before, size)
    return out


def _reduction(reduce: Callable[..., Tensor]) -> Semantics:
    def compute(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
        return reduce(x, dim=tuple(axes) if axes is not None else tuple(range(x.ndim)), keepdim=keep_dims)

    return compute


def _layer_norm(
    x: Tensor, axes: list[int], gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    centred = x - x.mean(dim=axes, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(dim=axes, keepdim=True) + epsilon)
    shape = [size if axis in {each % x.ndim for each in axes} else 1 for axis, size in enumerate(x.shape)]
    normed = normed if gamma is None else normed * gamma.reshape(shape)
    return normed if beta is None else normed + beta.reshape(shape)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    normed = (x - _per_channel(mean, x)) * torch.rsqrt(_per_channel(variance, x) + epsilon)
    normed = normed if gamma is None else normed * _per_channel(gamma, x)
    return normed if beta is None else normed + _per_channel(beta, x)


def _instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask)


def _gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def _cast(x: Tensor, dtype: str) -> Tensor:
    # Core ML cuts off the fraction, as PyTorch does.
    return x.to(_TORCH_TYPES[dtype])


def _leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return functional.leaky_relu(x, alpha)


def _elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


def _prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return functional.prelu(x, alpha)


def _sigmoid_hard(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x.clamp(alpha, beta)


def _thresholded_relu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


def _softmax(x: Tensor, axis: int = -1) -> Tensor:
    return x.softmax(axis)


def _rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


def _inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


def _log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(x, weight, bias)


def _einsum(values: tuple[Tensor, ...], equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def _select(cond: Tensor, a: Number, b: Number) -> Tensor:
    return torch.where(cond, _tensor(a), _tensor(b))


def _tensor(value: Number) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _unary(compute: Callable[[Tensor], Tensor]) -> Semantics:
    def computed(x: Tensor) -> Tensor:
        return compute(x)

    return computed


def _binary(compute: Callable[[Tensor, Tensor], Tensor]) -> Semantics:
    def computed(x: Number, y: Number) -> Tensor:
        return compute(_tensor(x), _tensor(y))

    return computed


SEMANTICS: dict[str, Semantics] = LAYOUT | {
    "abs": _unary(torch.abs),
    "add": _binary(torch.add),
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": _clip,
    "conv": _convolution,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "elu": _elu,
    "equal": _binary(torch.eq),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "gelu": _gelu,
    "greater": _binary(torch.gt),
    "identity": _unary(lambda x: x),
    "instance_norm": _instance_norm,
    "inverse": _inverse,
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "less": _binary(torch.lt),
    "linear": _linear,
    "log": _log,
    "matmul": _matmul,
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mul": _binary(torch.mul),
    "pow": _binary(torch.pow),
    "prelu": _prelu,
    "real_div": _binary(torch.true_divide),
    "reduce_l2_norm": _reduction(torch.linalg.vector_norm),
    "reduce_max": _reduction(torch.amax),
    "reduce_mean": _reduction(torch.mean),
    "reduce_min": _reduction(torch.amin),
    "reduce_sum": _reduction(torch.sum),
    "relu": _unary(torch.relu),
    "relu6": _unary(functional.relu6),
    "rsqrt": _rsqrt,
    "scaled_dot_product_attention": _attention,
    "select": _select,
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": _sigmoid_hard,
    "sign": _unary(torch.sign),
    "silu": _unary(functional.silu),
    "softmax": _softmax,
    "softplus": _unary(functional.softplus),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "sub": _binary(torch.sub),
    "tanh": _unary(torch.tanh),
    "thresholded_relu": _thresholded_relu,
}
"""Functions that compute the operations, by Core ML's name of their type."""
