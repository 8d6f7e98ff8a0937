"""A Core ML program as plain data: what a device will run, readable on any system.

    program = read_program("decoder.mlpackage")
    for operation in program.operations:
        print(operation.op_type, [value.shape for value in operation.results], operation.stage)

Values have the shape and type that they have in the program. A value that is known before the program runs (weights,
axes, padding) carries its `constant`; compressed weights are there decompressed, with the bits that they are stored in.
Operations are in the order of execution, those that only hold a constant are left out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core_ml.coremltools_package import import_coremltools
from nas.terminal.errors import UserError

if TYPE_CHECKING:
    from coremltools.models import MLModel

HIGHEST_RANK = 5
"""Most axes that a tensor of a Core ML program may have."""

_BITS = {"fp16": 16, "fp32": 32, "int32": 32, "int16": 16, "uint16": 16, "int8": 8, "uint8": 8, "bool": 8, "str": 0}
_STAGE_OF_WEIGHT = re.compile(r"p_(?:decoder_)?(stem|stages_\d+|head|shortcut)_")


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor, or one of the numbers, words and lists that say how an operation computes."""

    name: str
    """Name of the value, unique in its program."""
    shape: tuple[int, ...]
    """Size along each axis; () for a single number."""
    dtype: str
    """Core ML's name of the type: fp16, fp32, int32, bool, str, ..."""
    constant: Any = None
    """Value of a constant, a numpy array or a str; None for what is computed."""
    stored_bytes: int = 0
    """Bytes that a constant takes in the package; 0 for what is computed."""

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes that the value takes in memory."""
        return self.elements * _BITS[self.dtype] // 8


@dataclass(frozen=True, eq=False)
class Operation:
    """One step of a program."""

    op_type: str
    """Core ML's name of the operation's type: conv, add, pixel_shuffle, ..."""
    inputs: dict[str, Value | tuple[Value, ...]]
    """Inputs by Core ML's parameter names; a tuple where an operation takes any number of tensors (concat)."""
    results: tuple[Value, ...]
    """Values that the operation computes."""
    stage: str = ""
    """Stage of a decoder that the operation belongs to: stem, stage0, ..., head, shortcut; "" where that is unknown.

    It is taken from the names of weights: an operation without weights belongs to the stage of the weights before it
    (the first operations: after them).
    """

    @property
    def name(self) -> str:
        """Name of the first result."""
        return self.results[0].name

    def values(self) -> Iterator[Value]:
        """All inputs, one by one."""
        for value in self.inputs.values():
            yield from value if isinstance(value, tuple) else (value,)

    def tensors(self) -> list[Value]:
        """The inputs that hold data: what was computed before, and the weights."""
        return [value for value in self.values() if value.constant is None or value.dtype in ("fp16", "fp32")]

    def constant(self, name: str) -> Any:
        """A constant input as Python numbers, word or (nested) list; KeyError if it is not given."""
        value = self.inputs[name]
        assert isinstance(value, Value) and value.constant is not None
        return value.constant if isinstance(value.constant, str) else value.constant.tolist()


@dataclass(frozen=True, eq=False)
class Program:
    """A function of a Core ML model, as straight-line code."""

    inputs: tuple[Value, ...]
    """Values that the function is given."""
    outputs: tuple[Value, ...]
    """Values that the function returns."""
    operations: tuple[Operation, ...]
    """Operations in the order of execution."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Metadata of the package for its users, by name."""


def read_program(model: "MLModel | Path | str", function: str = "main") -> Program:
    """Read a function of a converted model, weights included.

    Args:
        model: what coremltools converted, or the path of an `.mlpackage`.
        function: its name, for a package with several.

    Raises:
        UserError: the path holds no such package or the package no such function.
    """
    ct = import_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    if isinstance(model, Path | str):
        if not (Path(model) / "Manifest.json").is_file():
            raise UserError(f"expected the folder of an .mlpackage, but {model} is not one")
        model = ct.models.MLModel(str(model), skip_model_load=True)
    spec = model.get_spec()
    if spec.WhichOneof("Type") != "mlProgram":
        raise UserError(f"expected an ML program, the model is of the older type '{spec.WhichOneof('Type')}'")
    loaded = load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    if function not in loaded.functions:
        raise UserError(f"the package has no function '{function}': known: {', '.join(loaded.functions)}")
    return from_mil(loaded, function, metadata=dict(spec.description.metadata.userDefined))


def from_mil(mil_program: Any, function: str = "main", metadata: dict[str, str] | None = None) -> Program:
    """The same for a program as coremltools holds it in memory (`coremltools.converters.mil.mil.Program`)."""
    body = mil_program.functions[function]
    values: dict[Any, Value] = {var: _value(var) for var in body.inputs.values()}
    inputs = tuple(values.values())
    operations: list[Operation] = []
    stage = ""
    for operation in body.operations:
        if operation.blocks:
            raise UserError(f"the program has control flow ('{operation.op_type}'), a decoder's has none")
        if operation.op_type == "const":
            values[operation.outputs[0]] = _value(operation.outputs[0], constant=operation.outputs[0].val)
        elif operation.op_type.startswith("constexpr_"):
            stored = sum(values[var].stored_bytes for var in operation.inputs.values() if var is not None)
            constant = operation.materialized_val_inference()
            values[operation.outputs[0]] = _value(operation.outputs[0], constant=constant, stored_bytes=stored)
        else:
            values |= {var: _value(var) for var in operation.outputs}
            results = tuple(values[var] for var in operation.outputs)
            inputs_of = _arguments(operation, values)
            stage = _stage(inputs_of) or stage
            operations.append(Operation(operation.op_type, inputs_of, results, stage))
    first = next((operation.stage for operation in operations if operation.stage), "")
    operations = [operation if operation.stage else replace(operation, stage=first) for operation in operations]
    outputs = tuple(values[var] for var in body.outputs)
    return Program(inputs, outputs, tuple(operations), metadata or {})


def _arguments(operation: Any, values: dict[Any, Value]) -> dict[str, Value | tuple[Value, ...]]:
    found: dict[str, Value | tuple[Value, ...]] = {}
    for name, given in operation.inputs.items():
        if given is None:
            continue
        found[name] = tuple(values[var] for var in given) if isinstance(given, list | tuple) else values[given]
    return found


def _stage(arguments: dict[str, Value | tuple[Value, ...]]) -> str:
    names = [value.name for value in arguments.values() if isinstance(value, Value)]
    found = [match[1].replace("stages_", "stage") for name in names if (match := _STAGE_OF_WEIGHT.match(name))]
    return found[0] if found else ""


def _value(var: Any, constant: Any = None, stored_bytes: int | None = None) -> Value:
    from coremltools.converters.mil.mil import types

    dtype = types.builtin_to_string(var.dtype)
    shape = tuple(int(size) for size in var.shape)
    if stored_bytes is None:
        # Weights below a byte (4-bit tables) come as their own types.
        bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
        stored_bytes = prod(shape) * bits // 8 if constant is not None else 0
    if constant is not None and not isinstance(constant, str):
        constant = np.asarray(constant)  # single numbers come as Python's or numpy's
    return Value(var.name, shape, dtype, constant, stored_bytes)
