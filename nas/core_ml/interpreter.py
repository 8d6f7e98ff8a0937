"""Computes a Core ML program in PyTorch, on any system: in float32, or as a device does that rounds to float16.

Core ML itself runs on Apple's systems only. This walks the operations of the very program that is shipped.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.core_ml.program import Operation, Program, Value
from nas.core_ml.semantics import SEMANTICS


class UnknownOperationError(ValueError):
    """A program has an operation, or an option of one, that the interpreter does not know."""


def interpret(program: Program, inputs: Mapping[str, Tensor], *, rounded: bool) -> dict[str, Tensor]:
    """The outputs of a program by name, as float32.

    Args:
        program: what is computed.
        inputs: tensors by the names of the program's inputs, in the shapes that it was made for.
        rounded: round every result that is float16 in the program to float16. Sums inside of an operation (a
            convolution, a mean) are kept in float32, as devices do. Otherwise nothing is rounded but the weights.

    Raises:
        UnknownOperationError: an operation is not known.
        ValueError: the inputs have other names or shapes than the program's.
    """
    wanted = {value.name for value in program.outputs}
    found: dict[str, Tensor] = {}
    for value, tensor in walk(program, inputs, rounded=rounded):
        if value.name in wanted:
            found[value.name] = tensor
    return {value.name: found[value.name] for value in program.outputs}


@torch.no_grad()
def walk(program: Program, inputs: Mapping[str, Tensor], *, rounded: bool) -> Iterator[tuple[Value, Tensor]]:
    """Every value in the order of computation, inputs first; see `interpret`. What is not needed any more is freed."""
    _check_inputs(program, inputs)
    last_use = {value.name: index for index, step in enumerate(program.operations) for value in step.values()}
    alive: dict[str, Tensor] = {}
    for value in program.inputs:
        alive[value.name] = _rounded(value, inputs[value.name].float(), rounded)
        yield value, alive[value.name]
    for index, operation in enumerate(program.operations):
        for value, tensor in zip(operation.results, _compute(operation, alive), strict=True):
            if tuple(tensor.shape) != value.shape:
                got = tuple(tensor.shape)
                raise ValueError(
                    f"{operation.op_type} '{operation.name}' gives {got}, in the program it is {value.shape}"
                )
            alive[value.name] = _rounded(value, tensor, rounded)
            yield value, alive[value.name]
        for value in operation.values():
            if last_use[value.name] == index:
                alive.pop(value.name, None)


def unknown_operations(operations: Iterable[Operation]) -> list[str]:
    """The types of these operations that `interpret` does not know, sorted."""
    return sorted({operation.op_type for operation in operations} - SEMANTICS.keys())


def _check_inputs(program: Program, inputs: Mapping[str, Tensor]) -> None:
    wanted = {value.name: value.shape for value in program.inputs}
    given = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    if wanted != given:
        raise ValueError(f"the program takes {wanted}, got {given}")


def _compute(operation: Operation, alive: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    semantics = SEMANTICS.get(operation.op_type)
    if semantics is None:
        raise UnknownOperationError(
            f"operation '{operation.op_type}' ({operation.name}) is not known to the interpreter: add it to "
            f"nas/core_ml/semantics.py"
        )
    arguments: dict[str, Any] = {}
    for name, given in operation.inputs.items():
        if isinstance(given, tuple):
            arguments[name] = tuple(_argument(each, alive) for each in given)
        else:
            arguments[name] = _argument(given, alive)
    try:
        inspect.signature(semantics).bind(**arguments)
    except TypeError as error:
        raise UnknownOperationError(f"operation '{operation.op_type}' ({operation.name}): {error}") from error
    try:
        out = semantics(**arguments)
    except (ValueError, RuntimeError, IndexError) as error:
        raise UnknownOperationError(f"operation '{operation.op_type}' ({operation.name}): {error}") from error
    return out if isinstance(out, tuple) else (out,)


def _argument(value: Value, alive: Mapping[str, Tensor]) -> Any:
    """A tensor for what is computed and for weights; Python's numbers, words and lists for other constants."""
    constant = value.constant
    if constant is None:
        return alive[value.name]
    if isinstance(constant, str):
        return constant
    if value.shape and value.dtype in ("fp16", "fp32"):
        return torch.from_numpy(np.array(constant, dtype=np.float32))
    return constant.tolist()


def _rounded(value: Value, tensor: Tensor, rounded: bool) -> Tensor:
    return tensor.half().float() if rounded and value.dtype == "fp16" else tensor
