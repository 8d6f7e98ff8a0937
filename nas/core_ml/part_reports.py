"""What each part of a decoder becomes in a Core ML program, found by converting it alone at its own size.

Nothing is computed. What was found is kept on disk under the cache folder, in a folder for each structure of a part, so
that most candidates of a search, which share parts or have parts that differ in sizes alone, cost little.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import blocks
from blocks import get_block
from nas.core_ml import (
    convert,
    interpreter,
    part_templates,
    part_traces,
    parts,
    program,
    semantics,
    semantics_layout,
    steps,
)
from nas.core_ml.convert import to_mil
from nas.core_ml.interpreter import unknown_operations
from nas.core_ml.part_templates import Sizes, conclude_steps
from nas.core_ml.part_traces import PartAlone, UntraceablePartError, example_inputs, trace_part
from nas.core_ml.parts import Part
from nas.core_ml.program import HIGHEST_RANK, Operation, Program, from_mil
from nas.core_ml.steps import Step, steps_of
from nas.machine.files import default_cache_dir, disk_errors, read_json, write_json
from nas.machine.reading import understanding
from nas.terminal.errors import UserError


@dataclass(frozen=True)
class PartReport:
    """What converting one part alone has shown."""

    problem: str
    """Why the part cannot ship; empty if it can."""
    steps: tuple[Step, ...]
    """Operations of the part's program in the order of execution; empty if it cannot be converted."""

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PartReport":
        """Inverse of `to_dict`."""
        return cls(data["problem"], tuple(Step.from_dict(step) for step in data["steps"]))


def inspect_parts(parts: Iterable[Part]) -> dict[Part, PartReport]:
    """What each part becomes; those that were never seen, and do not follow from others, are converted and remembered.

    Raises:
        NotBuildableError: a part cannot be built for its place.
    """
    wanted = list(dict.fromkeys(parts))
    found = {part: report for part in wanted if (report := known_report(part)) is not None}
    new = [part for part in wanted if part not in found]
    for part, report in zip(new, _convert(new), strict=True):
        _keep(part, report)
    return {part: _KNOWN[part] for part in wanted}


_CONVERTERS = (parts, part_traces, part_templates, convert, program, steps, interpreter, semantics, semantics_layout)
"""Modules beside this one that decide what a report of a part says."""

_KNOWN: dict[Part, PartReport] = {}
"""Reports that this process has made, concluded or read."""

_LIKE: dict[Path, dict[str, tuple[Sizes, PartReport]]] = {}
"""Folder of a structure -> by file, sizes and reports of the parts of it that were converted."""

_MOST_ALIKE = 8
"""Converted parts of one structure that conclusions are drawn from."""


def known_report(part: Part) -> PartReport | None:
    """What is known of a part: remembered, on disk, or concluded from those of its structure; nothing is converted.

    Raises:
        NotBuildableError: the part cannot be built for its place.
    """
    if part in _KNOWN:
        return _KNOWN[part]
    try:
        trace = trace_part(part)
    except UntraceablePartError as error:
        _KNOWN[part] = PartReport(f"not convertible: {error}", ())
        return _KNOWN[part]
    if (path := _file(part)).exists():
        _, _KNOWN[part] = _read(path)
        return _KNOWN[part]
    alike = [(sizes, report.steps) for sizes, report in _alike(path.parent) if not report.problem]
    if (steps := conclude_steps(trace.sizes, alike)) is not None:
        _KNOWN[part] = PartReport("", steps)
    return _KNOWN.get(part)


def _alike(folder: Path) -> Iterable[tuple[Sizes, PartReport]]:
    """Parts of one structure that were converted, by any process."""
    found = _LIKE.setdefault(folder, {})
    for file in folder.glob("*.json"):
        if len(found) < _MOST_ALIKE and file.name not in found:
            found[file.name] = _read(file)
    return found.values()


def _read(file: Path) -> tuple[Sizes, PartReport]:
    with understanding(file, "delete it, it is made again"):
        data = read_json(file)
        return tuple(data["sizes"]), PartReport.from_dict(data["report"])


def _keep(part: Part, report: PartReport) -> None:
    """Remember what was found by converting a part, here and on disk."""
    _KNOWN[part] = report
    with disk_errors("cannot keep what was found about a part"):
        write_json(_file(part), {"sizes": trace_part(part).sizes, "report": report.to_dict()})


def _file(part: Part) -> Path:
    """File of a part in the folder of its structure; both names change with every source file and the converter."""
    sources = _sources(get_block(part.config.name).__module__.split(".")[0])
    structure = _hash([trace_part(part).structure, sources, *_converter_versions()])
    return (
        default_cache_dir() / "parts" / structure / f"{_hash({**asdict(part), 'config': part.config.to_dict()})}.json"
    )


@lru_cache
def _converter_versions() -> tuple[str, str]:
    return version("coremltools"), version("torch")


def _hash(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:24]


class _SideBySide(nn.Module):
    """Parts that have nothing to do with each other, in one program: most of a conversion's time is per program."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.counts = [1 + bool(part.added_to) for part in parts]
        self.parts = nn.ModuleList(map(PartAlone, parts))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Each part's result."""
        remaining = iter(inputs)
        return tuple(part(*islice(remaining, count)) for part, count in zip(self.parts, self.counts, strict=True))


def _convert(parts: Sequence[Part]) -> list[PartReport]:
    """Together; one by one where that fails, to find out which it was."""
    if not parts:
        return []
    try:
        with torch.random.fork_rng(devices=[]):
            module = _SideBySide(parts)
        examples = [example for part in parts for example in example_inputs(part)]
        programs = _apart(from_mil(to_mil(module, *examples, precision="float32")), module.counts)
    except Exception as error:  # of torch.export and coremltools, which raise many kinds: that is the finding
        if len(parts) > 1:
            return [report for part in parts for report in _convert([part])]
        return [PartReport(f"not convertible: {' '.join(str(error).split())[:200]}", ())]
    return list(map(_report, programs))


def _apart(program: Program, counts: Sequence[int]) -> list[list[Operation]]:
    """The operations of each part: those that follow from its inputs. ValueError if one follows from none."""
    if len(counts) == 1:
        return [list(program.operations)]
    owner: dict[str, int] = {}
    remaining = iter(program.inputs)
    for index, count in enumerate(counts):
        owner |= {value.name: index for value in islice(remaining, count)}
    found: list[list[Operation]] = [[] for _ in counts]
    for operation in program.operations:
        (index,) = {owner[value.name] for value in operation.values() if value.constant is None}
        owner |= {value.name: index for value in operation.results}
        found[index].append(operation)
    return found


def _report(operations: Sequence[Operation]) -> PartReport:
    high = sorted({step.op_type for step in operations for out in step.results if out.rank > HIGHEST_RANK})
    unknown = unknown_operations(operations)
    problem = ""
    if high:
        problem = f"tensors of more than {HIGHEST_RANK} axes in {', '.join(high)}"
    elif unknown:
        problem = f"operations that cannot be proven: {', '.join(unknown)}"
    return PartReport(problem, steps_of(operations))


@lru_cache
def _sources(package: str) -> str:
    """Hash of every source file that a part and its report are made of.

    Args:
        package: top-level package that the part is defined in; of a plugin all files count.
    """
    digest = hashlib.sha256()
    of_parts = sorted(Path(blocks.__path__[0]).rglob("*.py"))
    for file in [*of_parts, *(Path(str(module.__file__)) for module in _CONVERTERS), Path(__file__)]:
        digest.update(file.read_bytes())
    if package != blocks.__name__:
        for file in _plugin_files(package):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _plugin_files(package: str) -> list[Path]:
    """The source files of a package or module that is not ours; UserError if it has none."""
    module = sys.modules[package]
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    if files:
        return files
    if getattr(module, "__file__", None) is None:
        raise UserError(f"a part is defined in '{package}', which is not a file: put it into a module and import that")
    return [Path(str(module.__file__))]
