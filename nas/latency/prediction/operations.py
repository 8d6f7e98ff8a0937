"""What a decoder executes: every tensor operation with its multiply-accumulates and memory traffic, nothing computed.

The module runs on meta tensors, so that a decode of 17 frames at 512x512 needs no memory. Sizes are those of float16,
the precision that phones run, whatever the module's own.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.core_ml.program import HIGHEST_RANK
from nas.latency.prediction.cost_classes import COST_CLASS_OF, FREE, CostClass
from nas.latency.stages import stage_modules, watch_stages
from nas.terminal.errors import UserError

BYTES_PER_ELEMENT = 2
"""Size of a float16 number."""


class UnknownOperationError(UserError):
    """A decoder uses an operation without a known cost."""


@dataclass(frozen=True)
class Convolution:
    """The geometry of a convolution, which decides how a runtime computes it."""

    channels_out: int
    """Channels of the result."""
    groups: int
    """Groups of channels that are convolved apart; 1 for a dense convolution."""
    kernel: tuple[int, ...]
    """Size of the kernel along each axis."""
    input_shape: tuple[int, ...]
    """Shape of the input: batch, channels, then the grid."""


@dataclass(frozen=True)
class Operation:
    """One executed operation. Views are not in the list: they cost nothing."""

    name: str
    """Name of the operator in PyTorch (without its overload) or in Core ML."""
    cost_class: CostClass
    """Group of operations that share one cost model."""
    stage: str
    """Stage of the decoder that executed the operation."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products; 0 for all others."""
    reads: tuple[tuple[int, ...], ...]
    """Shapes of all inputs, weights included. An axis along which an input is expanded has length 1."""
    writes: tuple[tuple[int, ...], ...]
    """Shapes of all outputs."""
    channels_in: int = 0
    """Input channels that each output channel of a convolution sees (1 for depthwise); 0 for all other operations."""
    convolution: Convolution | None = None
    """Geometry of a convolution; None for all other operations."""

    @property
    def bytes_read(self) -> int:
        """Bytes of all inputs in float16."""
        return BYTES_PER_ELEMENT * sum(map(prod, self.reads))

    @property
    def bytes_written(self) -> int:
        """Bytes of all outputs in float16."""
        return BYTES_PER_ELEMENT * sum(map(prod, self.writes))


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
    # Inference mode would keep composite operations (reshape, pad, linear) whole and hide what they copy.
    with torch.inference_mode(False), torch.no_grad(), watch_stages(groups, recorder.enter), recorder:
        module(torch.empty(tuple(input_shape), device="meta"))
    return recorder.operations


def _copy_to_meta(module: nn.Module, groups: dict[str, nn.Module]) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Copies on the meta device in evaluation mode; no weight is copied."""
    memo: dict[int, Any] = {}
    with torch.inference_mode(False):
        for parameter in module.parameters():
            memo[id(parameter)] = nn.Parameter(_meta_like(parameter), requires_grad=False)
        for buffer in module.buffers():
            memo[id(buffer)] = _meta_like(buffer)
    copied, copied_groups = copy.deepcopy((module, groups), memo)
    return copied.eval(), copied_groups


def _meta_like(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that PyTorch dispatches while it is active."""

    def __init__(self, stage: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._stage = stage

    def enter(self, stage: str) -> None:
        """Operations from here on belong to `stage`."""
        self._stage = stage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        cost_class, name = _classify(func, self._stage)
        out = func(*args, **(kwargs or {}))
        if cost_class is None or _only_changes_dtype(name, args, out):
            return out
        inputs = list(_tensors((args[1:] if name == "copy" else args, kwargs)))
        outputs = list(_tensors(out))
        self.operations.append(
            Operation(
                name=name,
                cost_class=_refine(cost_class, args, outputs),
                stage=self._stage,
                macs=_MACS[name](args, out) if name in _MACS else 0,
                reads=tuple(map(_distinct, inputs)),
                writes=tuple(map(_distinct, outputs)),
                channels_in=_channels_in(args) if name == "convolution" else 0,
                convolution=_geometry(args, out) if name == "convolution" else None,
            )
        )
        return out


def _classify(func: Any, stage: str) -> tuple[CostClass | None, str]:
    """Cost class (None: free) and name of an operator, in-place forms like the others."""
    name = str(func.overloadpacket.__name__)
    if not name.startswith("__") and name.endswith("_"):
        name = name.removesuffix("_")
    if func.namespace == "aten":
        if name in FREE:
            return None, name
        if name in COST_CLASS_OF:
            return COST_CLASS_OF[name], name
    raise UnknownOperationError(
        f"no cost is known for the operation {func} (in '{stage}'): build the decoder from other operations, "
        f"or give this one a cost class in nas/latency/prediction/cost_classes.py"
    )


def _only_changes_dtype(name: str, args: Any, out: Any) -> bool:
    """Whether a copy is left out on the device, where everything is float16."""
    return name == "_to_copy" and out.dtype != args[0].dtype


def _tensors(values: Any) -> Iterable[Tensor]:
    """All tensors in nested arguments, each once."""
    found = {id(leaf): leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, Tensor)}
    return found.values()


def _distinct(tensor: Tensor) -> tuple[int, ...]:
    return tuple(size if stride else 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _refine(cost_class: CostClass, args: Any, outputs: list[Tensor]) -> CostClass:
    """The cost classes that depend on the shapes."""
    if cost_class == "conv" and args[8] > 1 and args[8] == args[0].shape[1]:
        return "depthwise_conv"
    if cost_class == "movement" and any(_long_axes(tensor) > HIGHEST_RANK for tensor in outputs):
        return "high_rank_movement"
    return cost_class


def _long_axes(tensor: Tensor) -> int:
    return sum(size > 1 for size in tensor.shape)


def _channels_in(args: Any) -> int:
    """Input channels per group of a convolution; a transposed one's weight has all input channels first."""
    weight, transposed, groups = args[1], args[6], args[8]
    return int(weight.shape[0]) // groups if transposed else int(weight.shape[1])


def _geometry(args: Any, out: Tensor) -> Convolution:
    x, weight, groups = args[0], args[1], args[8]
    return Convolution(int(out.shape[1]), int(groups), tuple(weight.shape[2:]), tuple(x.shape))


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
