"""The operations of a converted module without their values: types, shapes, multiply-accumulates."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import isqrt, prod
from typing import Any

from torch import Tensor, nn

from nas.core_ml.convert import to_mil
from nas.core_ml.program import Operation, Value, from_mil

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One operation of a program."""

    op_type: str
    """Core ML's name of the operation's type: conv, add, pixel_shuffle, ..."""
    inputs: tuple[tuple[str, Shape], ...]
    """Core ML's parameter name and the shape of each tensor, weights included."""
    results: tuple[Shape, ...]
    """Shapes of the results."""
    macs: int = 0
    """Multiply-accumulates of convolutions and matrix products; 0 for all others."""
    groups: int = 1
    """Groups of a convolution; 1 for a dense one and for all other operations."""
    reads: tuple[int, ...] = ()
    """Number of each input, by which the step that makes it is found; -1 for a weight."""
    writes: tuple[int, ...] = ()
    """Number of each result; what no step makes is an input of the program."""

    def input(self, name: str) -> Shape:
        """Shape of the tensor with this parameter name; KeyError if there is none."""
        return dict(self.inputs)[name]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Step":
        """Inverse of `dataclasses.asdict`, through JSON."""
        inputs = tuple((name, tuple(shape)) for name, shape in data["inputs"])
        plain = {name: tuple(data[name]) for name in ("reads", "writes")}
        return cls(**{**data, **plain, "inputs": inputs, "results": tuple(map(tuple, data["results"]))})


def steps_of(operations: Iterable[Operation]) -> tuple[Step, ...]:
    """The operations without their values, in the order of execution."""
    numbers: dict[str, int] = {}
    return tuple(_step(operation, numbers) for operation in operations)


def module_steps(module: nn.Module, *inputs: Tensor) -> tuple[Step, ...]:
    """The program of a module for inputs of these shapes; values do not matter.

    Raises:
        Exception: as `nas.core_ml.convert.to_mil`.
    """
    # In float32 there are no casts, which a program in float16 has at its ends only.
    return steps_of(from_mil(to_mil(module, *inputs, precision="float32")).operations)


def _step(operation: Operation, numbers: dict[str, int]) -> Step:
    """One step; `numbers` holds those of the values before and is added to."""

    def number(value: Value) -> int:
        return -1 if value.constant is not None else numbers.setdefault(value.name, len(numbers))

    tensors = list(_tensors(operation))
    step = Step(
        op_type=operation.op_type,
        inputs=tuple((name, value.shape) for name, value in tensors),
        results=tuple(value.shape for value in operation.results),
        groups=int(operation.constant("groups")) if "groups" in operation.inputs else 1,
        reads=tuple(number(value) for _, value in tensors),
        writes=tuple(map(number, operation.results)),
    )
    if operation.op_type == "einsum":
        return replace(step, macs=_einsum(operation))
    count = MACS_OF_SHAPES.get(operation.op_type)
    return step if count is None else replace(step, macs=count(step))


def _tensors(operation: Operation) -> Iterable[tuple[str, Value]]:
    for name, given in operation.inputs.items():
        for value in given if isinstance(given, tuple) else (given,):
            if value.shape and (value.constant is None or value.dtype in ("fp16", "fp32")):
                yield name, value


def _convolution(step: Step) -> int:
    """Every weight meets every output position of its clip (input position, if transposed)."""
    x, weight, (out,) = step.input("x"), step.input("weight"), step.results
    positions = x if step.op_type == "conv_transpose" else out
    return prod((x[0], *weight, *positions[2:]))


def _linear(step: Step) -> int:
    return prod(step.results[0]) * step.input("x")[-1]


def _matmul(step: Step) -> int:
    """(n, k) times (k, m), either transposed or not: k^2 is what the sizes of all three leave."""
    x, y, out = (shape[-2:] for shape in (step.input("x"), step.input("y"), step.results[0]))
    return prod(step.results[0]) * isqrt(prod(x) * prod(y) // prod(out))


def _attention(step: Step) -> int:
    query, key, (out,) = step.input("query"), step.input("key"), step.results
    return prod(query[:-1]) * key[-2] * (query[-1] + out[-1])


def _einsum(operation: Operation) -> int:
    """Every index of the equation once, as far as two factors go."""
    factors, _ = str(operation.constant("equation")).replace(" ", "").split("->")
    values = operation.inputs["values"]
    assert isinstance(values, tuple)
    sizes = {
        letter: size
        for letters, value in zip(factors.split(","), values, strict=True)
        for letter, size in zip(letters, value.shape, strict=True)
    }
    return prod(sizes.values())


MACS_OF_SHAPES: dict[str, Callable[[Step], int]] = {
    "conv": _convolution,
    "conv_transpose": _convolution,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}
"""Multiply-accumulates of a step by its type, where shapes alone tell them."""
