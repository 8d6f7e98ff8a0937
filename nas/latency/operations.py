"""What a decoder executes: every tensor operation with its multiply-accumulates and memory traffic, nothing computed.

The module runs on meta tensors, so that a decode of 17 frames at 512x512 needs no memory. Sizes are those of float16,
the precision that phones run, whatever the module's own.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.latency.stages import stage_modules, watch_stages

Kind = Literal[
    "conv", "depthwise_conv", "matmul", "elementwise", "reduction", "movement", "high_rank_movement", "resize"
]
"""A high-rank movement is a copy of a tensor that has more than five axes longer than 1: Core ML has no such tensors,
so one copy here becomes many reshapes and transposes there."""

HIGHEST_DEVICE_RANK = 5
"""Of Core ML."""

BYTES_PER_ELEMENT = 2
"""float16."""

_FREE = frozenset(
    # Views, and constants that a converter folds.
    """alias as_strided detach diagonal expand lift_fresh movedim narrow permute select slice split split_with_sizes
    squeeze t transpose unbind unfold unsafe_split unsqueeze view _reshape_alias _unsafe_view
    arange empty empty_like full full_like new_empty new_full new_ones new_zeros ones ones_like scalar_tensor zeros
    zeros_like""".split()
)

_KINDS: dict[Kind, frozenset[str]] = {
    "matmul": frozenset("addmm baddbmm bmm mm".split()),
    "elementwise": frozenset(
        """abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or ceil clamp clamp_max clamp_min cos div elu eq erf
        exp fill floor ge gelu gt hardsigmoid hardswish hardtanh leaky_relu le lerp log logical_and logical_not
        logical_or lt masked_fill maximum minimum mish mul ne neg pow _prelu_kernel reciprocal relu relu6 remainder
        round rsqrt rsub sgn sigmoid sign silu sin softplus sqrt square sub tanh tril triu where zero""".split()
    ),
    "reduction": frozenset(
        """_log_softmax _safe_softmax _softmax amax amin cumsum linalg_vector_norm max mean min native_batch_norm
        _native_batch_norm_legit_no_training native_group_norm native_layer_norm _fused_rms_norm sum std std_mean var
        var_mean _adaptive_avg_pool2d _adaptive_avg_pool3d avg_pool2d avg_pool3d max_pool2d_with_indices""".split()
    ),
    "movement": frozenset(
        """cat channel_shuffle clone constant_pad_nd copy flip gather index index_select pixel_shuffle pixel_unshuffle
        reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d
        replication_pad2d replication_pad3d roll stack""".split()
    ),
    "resize": frozenset(
        """upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_trilinear3d
        upsample_bicubic2d upsample_linear1d _upsample_nearest_exact1d _upsample_nearest_exact2d
        _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa""".split()
    ),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}


class UnknownOperationError(ValueError):
    """A decoder uses an operation without a known cost."""


@dataclass(frozen=True)
class Operation:
    """One executed operation. Views are not in the list: they cost nothing."""

    name: str
    """Of the PyTorch operator, without its overload."""
    kind: Kind
    """What its cost depends on."""
    stage: str
    """Group of the decoder that executed it."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products; 0 for all others."""
    bytes_read: int
    """Of all inputs, weights included, as float16; what an input repeats by expansion counts once."""
    bytes_written: int
    """Of all outputs, as float16."""
    channels_in: int = 0
    """Input channels that each output channel of a convolution sees (1 for depthwise); 0 for all other operations."""

    @property
    def bytes_moved(self) -> int:
        """Read and written."""
        return self.bytes_read + self.bytes_written


def list_operations(module: nn.Module, input_shape: Sequence[int]) -> list[Operation]:
    """Every operation of `module(latents)` in the order of execution. The module itself is not touched.

    Args:
        module: any module that takes one tensor, on any device (meta included), with parameters of any dtype.
        input_shape: of the latents, `(b, c, t, h, w)` for a decoder.

    Raises:
        UnknownOperationError: an operation is in none of the tables here; it is never counted as free.
    """
    module, groups = _copy_to_meta(module, stage_modules(module))
    recorder = _Recorder(next(iter(groups)))
    latents = torch.empty(tuple(input_shape), device="meta")
    # Inference mode would keep composite operations (reshape, pad, linear) whole and hide what they copy.
    with torch.inference_mode(False), torch.no_grad(), watch_stages(groups, recorder.enter), recorder:
        module(latents.clone() if latents.is_inference() else latents)
    return recorder.operations


def _copy_to_meta(module: nn.Module, groups: dict[str, nn.Module]) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Copies on the meta device in evaluation mode; no weight is copied."""
    memo: dict[int, Any] = {}
    with torch.inference_mode(False):
        for parameter in module.parameters():
            memo[id(parameter)] = nn.Parameter(_meta_like(parameter), requires_grad=False)
        for buffer in module.buffers():
            memo[id(buffer)] = _meta_like(buffer)
    copied, copied_groups = cast(tuple[nn.Module, dict[str, nn.Module]], copy.deepcopy((module, groups), memo))
    return copied.eval(), copied_groups


def _meta_like(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")


class _Recorder(TorchDispatchMode):
    """Notes every operation that PyTorch dispatches while it is active."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._stage = stage

    def enter(self, stage: str) -> None:
        """Operations from here on belong to `stage`."""
        self._stage = stage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kind, name = _classify(func, self._stage)
        out = func(*args, **(kwargs or {}))
        if kind is not None and not (name == "_to_copy" and out.dtype != args[0].dtype):
            inputs = list(_tensors((args[1:] if name == "copy" else args, kwargs)))
            outputs = list(_tensors(out))
            macs = _MACS[name](args, out) if name in _MACS else 0
            channels_in = _channels_in(args) if name == "convolution" else 0
            kind = _refine(kind, args, outputs)
            self.operations.append(
                Operation(name, kind, self._stage, macs, _bytes(inputs), _bytes(outputs), channels_in)
            )
        return out


def _classify(func: Any, stage: str) -> tuple[Kind | None, str]:
    """Kind (None: free) and name of an operator, in-place forms like the others."""
    name = str(func.overloadpacket.__name__)
    if not name.startswith("__") and name.endswith("_"):
        name = name.removesuffix("_")
    if func.namespace == "aten":
        if name in _FREE:
            return None, name
        if name == "convolution":
            return "conv", name
        if name == "_to_copy":  # a change of dtype is dropped by the caller: on the device all is float16
            return "movement", name
        if name in _KIND_OF:
            return _KIND_OF[name], name
    raise UnknownOperationError(
        f"no cost is known for the operation {func} (in '{stage}'): build the decoder from other operations, "
        f"or give this one a kind in nas/latency/operations.py"
    )


def _tensors(values: Any) -> Iterable[Tensor]:
    """All tensors in nested arguments, each once."""
    found = {id(leaf): leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, Tensor)}
    return found.values()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return BYTES_PER_ELEMENT * sum(_distinct_elements(tensor) for tensor in tensors)


def _distinct_elements(tensor: Tensor) -> int:
    return prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0)


def _refine(kind: Kind, args: Any, outputs: list[Tensor]) -> Kind:
    """The kinds that depend on the shapes."""
    if kind == "conv" and args[8] > 1 and args[8] == args[0].shape[1]:
        return "depthwise_conv"
    if kind == "movement" and any(_long_axes(tensor) > HIGHEST_DEVICE_RANK for tensor in outputs):
        return "high_rank_movement"
    return kind


def _long_axes(tensor: Tensor) -> int:
    return sum(size > 1 for size in tensor.shape)


def _channels_in(args: Any) -> int:
    """Input channels per group of a convolution; a transposed one's weight has all input channels first."""
    weight, transposed, groups = args[1], args[6], args[8]
    return int(weight.shape[0]) // groups if transposed else int(weight.shape[1])


def _convolution_macs(args: Any, out: Tensor) -> int:
    """Every weight meets every output position of its clip (input position, if transposed)."""
    x, weight, transposed = args[0], args[1], args[6]
    positions = (x if transposed else out).shape[2:]
    return prod((x.shape[0], *weight.shape, *positions))


def _product_macs(args: Any, out: Tensor) -> int:
    """The last factor but one is `(..., n, k)`: k multiply-accumulates for each of the results."""
    return out.numel() * int(args[0].shape[-1])


def _biased_product_macs(args: Any, out: Tensor) -> int:
    return _product_macs(args[1:], out)


_MACS: dict[str, Callable[[Any, Tensor], int]] = {
    "convolution": _convolution_macs,
    "mm": _product_macs,
    "bmm": _product_macs,
    "addmm": _biased_product_macs,
    "baddbmm": _biased_product_macs,
}
