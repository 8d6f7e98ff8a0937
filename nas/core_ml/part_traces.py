"""What a part does in PyTorch, seen by running it alone without data: its operations with their sizes, in milliseconds.

Two parts whose traces differ in nothing but sizes become the same Core ML program but for sizes, see `part_templates`.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blocks import TimeContext, build_block
from blocks.layers.convolutions import single_frames
from blocks.registry import describe_error
from blocks.time_context import to_layout
from nas.core_ml.parts import Part, result_shape
from nas.core_ml.steps import Shape


class UntraceablePartError(Exception):
    """A part does not run without data, or not at its place; the message says why."""


@dataclass(frozen=True)
class TracedOperation:
    """One of PyTorch's operations."""

    name: str
    """Name of the operator without its overload."""
    reads: tuple[Shape, ...]
    """Shapes of the inputs; an axis along which an input is expanded has length 1."""
    writes: tuple[Shape, ...]
    """Shapes of the results."""
    groups: int = 1
    """Groups of a convolution; 1 for a dense one and for all other operations."""
    macs: int = 0
    """Multiply-accumulates of a convolution; 0 for all other operations."""
    constant: bool = False
    """Whether the operation sees nothing but weights and constants, so that a converter computes it beforehand."""


@dataclass(frozen=True)
class PartTrace:
    """What a part does when it runs alone."""

    structure: str
    """Hash of everything but sizes: which operations there are, and which of their sizes are equal or 1."""
    sizes: tuple[int, ...]
    """Every size of every tensor that an operation reads or writes, in order."""
    operations: tuple[TracedOperation, ...]
    """Every operation, views included, in the order of execution."""
    parameters: int
    """Number of parameters of the part."""


class PartAlone(nn.Module):
    """A part between the layouts of its neighbours, and what the decoder does to the frames at its end."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        with single_frames() if part.images else nullcontext():
            self.block = build_block(part.config, part.in_channels, **dict(part.geometry))

    def forward(self, x: Tensor, *network: Tensor) -> Tensor:
        """One clip in one shot; a shortcut is added to the network's frames."""
        part = self.part
        clips = part.grid[0] if part.images else 1
        time = TimeContext(clips, part.mode, drop_leading=part.drop_leading)
        x = self.block(to_layout(x, part.incoming, self.block.input_layout, time), time)
        x = to_layout(x, self.block.output_layout, part.outgoing, time)
        for frames in network:
            x = frames + x
        return to_layout(x, part.outgoing, "video", time).clamp(-1, 1) if part.ends else x


def example_inputs(part: Part) -> tuple[Tensor, ...]:
    """What goes in. It has no values, as nobody reads them: so it takes neither memory nor the time to fill it."""
    frames, height, width = part.grid
    clips, frames = (frames, 1) if part.images else (1, frames)
    x = torch.empty(clips, part.in_channels, frames, height, width)
    if part.incoming == "frames":
        x = x.view(clips * frames, part.in_channels, height, width)
    return (x, torch.empty(part.added_to)) if part.added_to else (x,)


def trace_part(part: Part) -> PartTrace:
    """Run a part once on the meta device; what was seen is remembered.

    Raises:
        NotBuildableError: the part cannot be built for its place.
        UntraceablePartError: it does not run there, or makes something else than the next part expects.
    """
    if part not in _TRACES:
        _TRACES[part] = _trace(part)
    return _TRACES[part]


_TRACES: dict[Part, PartTrace] = {}


def _trace(part: Part) -> PartTrace:
    with torch.inference_mode(False), torch.no_grad(), torch.device("meta"):
        with _WithoutValues():
            module = PartAlone(part).eval()
        inputs = example_inputs(part)
        recorder = _Recorder([*module.parameters(), *module.buffers()])
        try:
            with recorder:
                out = module(*inputs)
        except Exception as error:  # whatever a part raises, it is of no use here
            raise UntraceablePartError(f"it cannot be traced without data ({describe_error(error)})") from error
    if tuple(out.shape) != result_shape(part):
        raise UntraceablePartError(f"it makes {tuple(out.shape)} of {tuple(inputs[0].shape)}, not {result_shape(part)}")
    plain = asdict(part) | {"config": part.config.to_dict(), "in_channels": 0, "grid": (), "added_to": len(inputs) > 1}
    plain["geometry"] = [pair for pair in part.geometry if pair[0] != "out_channels"]
    text = json.dumps([plain, recorder.structure], sort_keys=True)
    return PartTrace(
        structure=hashlib.sha256(text.encode()).hexdigest()[:24],
        sizes=tuple(recorder.sizes),
        operations=tuple(recorder.operations),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


_IN_PLACE = ("kaiming_uniform_", "uniform_", "normal_", "ones_", "zeros_", "fill_", "zero_", "trunc_normal_")
_INITIAL = {getattr(torch.nn.init, name) for name in _IN_PLACE if hasattr(torch.nn.init, name)} | {
    getattr(Tensor, name) for name in _IN_PLACE if hasattr(Tensor, name)
}
"""Functions that give a tensor its first values."""


class _WithoutValues(TorchFunctionMode):
    """First values are left out: on the meta device there are none, and asking for them takes most of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in _INITIAL:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that PyTorch dispatches while it is active."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By identity; the tensors are kept, so that no other one gets their place.
        self._constants = {id(weight): weight for weight in weights}
        self.structure: list[Any] = []
        self.sizes: list[int] = []
        self.operations: list[TracedOperation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = (
            [leaf for leaf in tree_leaves(each) if isinstance(leaf, Tensor)] for each in ((args, kwargs), out)
        )
        constant = all(id(tensor) in self._constants for tensor in given)
        if constant:
            self._constants |= {id(tensor): tensor for tensor in made}
        reads, writes = ([tuple(tensor.shape) for tensor in tensors] for tensors in (given, made))
        shapes = reads + writes
        first = {shape: index for index, shape in reversed(list(enumerate(shapes)))}
        ones = [[index for index, size in enumerate(shape) if size == 1] for shape in shapes]
        ranks = [len(shape) for shape in shapes]
        self.structure.append([str(func), len(reads), ranks, [first[shape] for shape in shapes], ones])
        for shape in shapes:
            self.sizes.extend(shape)
        self.operations.append(replace(_operation(func, args, given, made), constant=constant))
        return out


def _operation(func: Any, args: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> TracedOperation:
    name = str(func.overloadpacket.__name__)
    reads, writes = tuple(map(_distinct, given)), tuple(map(_distinct, made))
    if name != "convolution":
        return TracedOperation(name, reads, writes)
    x, weight, transposed = args[0], args[1], args[6]
    # Every weight meets every output position of its clip (input position, if transposed).
    positions = (x if transposed else made[0]).shape[2:]
    return TracedOperation(name, reads, writes, int(args[8]), prod((x.shape[0], *weight.shape, *positions)))


def _distinct(tensor: Tensor) -> Shape:
    return tuple(size if stride else 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
