"""How many bytes a Core ML program takes: activations at once, and weights. Nothing is computed.

Counted: every value from the operation that computes it to the last one that reads it, the inputs of the program from
its start, and its outputs to its end. An operation holds its inputs and its results together: none is taken to compute
in place, and none to be fused with the next. Operations that only give a value another shape share its bytes.
Floating-point values count two bytes an element, as they ship. Weights are no activations, and what a kernel needs for
itself is not known.
"""

from collections.abc import Sequence

from nas.core_ml.program import Operation, Value

_ANOTHER_SHAPE = ("expand_dims", "identity", "reshape", "squeeze")
"""Operations whose result is their input under another shape."""
_FLOATS = ("fp16", "fp32")
_FLOAT_BYTES = 2


def peak_activations(operations: Sequence[Operation]) -> int:
    """Most bytes of activations that are alive at once; operations are in the order of execution."""
    holder: dict[str, str] = {}
    size: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, operation in enumerate(operations):
        for value in _activations(operation):
            # What nothing before has computed is an input.
            owner = holder.setdefault(value.name, value.name)
            size.setdefault(owner, _bytes(value))
            last[owner] = index
        shared = _shared(operation)
        for result in operation.results:
            owner = holder[result.name] = result.name if shared is None else holder[shared.name]
            size.setdefault(owner, _bytes(result))
    alive = size.keys() - {result.name for operation in operations for result in operation.results}
    peak = held = sum(size[name] for name in alive)
    for index, operation in enumerate(operations):
        new = {holder[result.name] for result in operation.results} - alive
        alive, held = alive | new, held + sum(size[name] for name in new)
        peak = max(peak, held)
        done = {name for name in alive if last.get(name) == index}
        alive, held = alive - done, held - sum(size[name] for name in done)
    return peak


def weight_bytes(operations: Sequence[Operation]) -> int:
    """Bytes of all weights in float16, each once."""
    constants = {value.name: value for operation in operations for value in operation.values()}
    return sum(_bytes(value) for value in constants.values() if value.constant is not None and value.dtype in _FLOATS)


def _shared(operation: Operation) -> Value | None:
    """The value whose bytes the result of an operation shares; None if the result has its own."""
    value = operation.inputs.get("x")
    if not isinstance(value, Value) or value.constant is not None:
        return None
    cast = operation.op_type == "cast" and value.dtype in _FLOATS and operation.results[0].dtype in _FLOATS
    return value if cast or operation.op_type in _ANOTHER_SHAPE else None


def _activations(operation: Operation) -> list[Value]:
    """The inputs that are not constants."""
    return [value for value in operation.values() if value.constant is None]


def _bytes(value: Value) -> int:
    return value.elements * _FLOAT_BYTES if value.dtype in _FLOATS else value.bytes
