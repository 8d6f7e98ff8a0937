"""How many bytes a Core ML program takes: activations at once, and weights. Nothing is computed.

Counted: every value from the step that makes it to the last one that reads it, the inputs of the program from its
start, and its outputs to its end. A step holds its inputs and its results together: none is taken to compute in place,
and none to be fused with the next. Steps that only give a value another shape share its bytes. Every value counts two
bytes an element, as it ships. Weights are no activations, and what a kernel needs for itself is not known.
"""

from collections.abc import Sequence
from math import prod

from nas.core_ml.steps import Shape, Step

_BYTES = 2
"""Bytes of an element in float16."""
_SHARING = ("cast", "expand_dims", "identity", "reshape", "squeeze")
"""Steps whose result is their input under another shape; a cast is none in a program that is float16 throughout."""


def peak_activations(steps: Sequence[Step]) -> int:
    """Most bytes of activations that are alive at once; steps are in the order of execution."""
    # A value that shares the bytes of another is known by the number of that one.
    holder: dict[int, int] = {}
    size: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        for number, (_, shape) in zip(step.reads, step.inputs, strict=True):
            if number >= 0:
                owner = holder.setdefault(number, number)
                size.setdefault(owner, _bytes(shape))
                last[owner] = index
        shared = holder.get(step.reads[0]) if step.op_type in _SHARING and step.reads else None
        for number, shape in zip(step.writes, step.results, strict=True):
            owner = holder[number] = number if shared is None else shared
            size.setdefault(owner, _bytes(shape))
    alive = size.keys() - {number for step in steps for number in step.writes}
    peak = held = sum(size[number] for number in alive)
    for index, step in enumerate(steps):
        new = {holder[number] for number in step.writes} - alive
        alive, held = alive | new, held + sum(size[number] for number in new)
        peak = max(peak, held)
        done = {number for number in alive if last.get(number) == index}
        alive, held = alive - done, held - sum(size[number] for number in done)
    return peak


def weight_bytes(steps: Sequence[Step]) -> int:
    """Bytes of all weights in float16; of one that several steps read as often as it is read."""
    inputs = (pair for step in steps for pair in zip(step.reads, step.inputs, strict=True))
    return sum(_bytes(shape) for number, (_, shape) in inputs if number < 0)


def _bytes(shape: Shape) -> int:
    return _BYTES * prod(shape)
