"""What a part becomes in Core ML, from what parts of the same structure became: the same program at other sizes.

Converting takes a second for every part, and a search meets thousands that differ in widths alone. Their traces in
PyTorch (`part_traces`) take milliseconds. Each size in a program is one of the sizes in the trace, always the same one,
or it is constant: which of them, a few converted parts tell. Where they leave a doubt nothing is concluded.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.core_ml.steps import MACS_OF_SHAPES, Shape, Step

Sizes = tuple[int, ...]
Found = Callable[[Sizes], int | None]


def conclude_steps(wanted: Sizes, known: Sequence[tuple[Sizes, tuple[Step, ...]]]) -> tuple[Step, ...] | None:
    """The program of a part whose trace has the sizes `wanted`; None where that does not follow.

    Args:
        wanted: sizes of the part's trace.
        known: sizes and programs of parts whose traces have the same structure.
    """
    programs = [steps for _, steps in known]
    if not programs or len({tuple(map(_kind, steps)) for steps in programs}) > 1:
        return None
    if any(step.macs and step.op_type not in MACS_OF_SHAPES for step in programs[0]):
        return None
    offered: dict[Sizes, set[int]] = defaultdict(set)
    for *of_known, size in zip(*(sizes for sizes, _ in known), wanted, strict=True):
        offered[tuple(of_known)].add(size)

    def find(values: Sizes) -> int | None:
        """What the size that is `values` in the known parts is in the wanted one, if that is certain."""
        possible = set(offered.get(values, ()))
        if len(set(values)) == 1:
            possible.add(values[0])
        return possible.pop() if len(possible) == 1 else None

    concluded = []
    for alike in zip(*programs, strict=True):
        step = _conclude(alike, find)
        if step is None:
            return None
        concluded.append(step)
    return tuple(concluded)


def _kind(step: Step) -> tuple[object, ...]:
    """Everything of a step but sizes."""
    inputs = tuple((name, len(shape)) for name, shape in step.inputs)
    return step.op_type, inputs, tuple(map(len, step.results)), step.groups > 1, step.reads, step.writes


def _conclude(alike: Sequence[Step], find: Found) -> Step | None:
    """One step, from what it is in each of the known programs."""
    first = alike[0]
    inputs = []
    for index, (name, _) in enumerate(first.inputs):
        shape = _conclude_shape([step.inputs[index][1] for step in alike], find)
        if shape is None:
            return None
        inputs.append((name, shape))
    results = [_conclude_shape([step.results[index] for step in alike], find) for index in range(len(first.results))]
    groups = find(tuple(step.groups for step in alike))
    if groups is None or any(shape is None for shape in results):
        return None
    step = replace(
        first,
        inputs=tuple(inputs),
        results=tuple(shape for shape in results if shape is not None),
        groups=groups,
    )
    count = MACS_OF_SHAPES.get(step.op_type)
    return step if count is None else replace(step, macs=count(step))


def _conclude_shape(shapes: Sequence[Shape], find: Found) -> Shape | None:
    sizes = [find(values) for values in zip(*shapes, strict=True)]
    return None if None in sizes else tuple(size for size in sizes if size is not None)
