"""What each part of a decoder becomes in a Core ML program, found by converting it alone at its own size.

Nothing is computed. What was found is kept on disk under the cache folder, so that most candidates of a search, which
share parts, cost little.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import blocks
from blocks import TimeContext, build_block, get_block
from blocks.layers.convolutions import single_frames
from blocks.time_context import to_layout
from nas.core_ml import convert, interpreter, liveness, parts, program, semantics, semantics_layout, steps
from nas.core_ml.convert import to_mil
from nas.core_ml.interpreter import unknown_operations
from nas.core_ml.liveness import peak_activations, weight_bytes
from nas.core_ml.parts import Part
from nas.core_ml.program import HIGHEST_RANK, Operation, Program, from_mil
from nas.core_ml.steps import Step, steps_of
from nas.machine.files import default_cache_dir, disk_errors, read_json, write_json
from nas.terminal.errors import UserError


@dataclass(frozen=True)
class PartReport:
    """What converting one part alone has shown."""

    problem: str
    """Why the part cannot ship; empty if it can."""
    steps: tuple[Step, ...]
    """Operations of the part's program in the order of execution; empty if it cannot be converted."""
    peak_activations: int = 0
    """Most bytes of activations that are alive at once, see `nas.core_ml.liveness`; 0 if it cannot be converted."""
    weight_bytes: int = 0
    """Bytes of its weights in float16; 0 if it cannot be converted."""

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PartReport":
        """Inverse of `to_dict`."""
        return cls(
            problem=data["problem"],
            steps=tuple(Step.from_dict(step) for step in data["steps"]),
            peak_activations=data["peak_activations"],
            weight_bytes=data["weight_bytes"],
        )


def inspect_parts(parts: Iterable[Part]) -> dict[Part, PartReport]:
    """What each part becomes; those that were never seen are converted, together, and remembered."""
    wanted = list(dict.fromkeys(parts))
    found = {part: report for part in wanted if (report := _known(part)) is not None}
    new = [part for part in wanted if part not in found]
    for part, report in zip(new, _convert(new), strict=True):
        _KNOWN[part] = found[part] = report
        with disk_errors("cannot keep what was found about a part"):
            write_json(_file(part), report.to_dict())
    return found


class _Alone(nn.Module):
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


_CONVERTERS = (parts, convert, program, steps, interpreter, liveness, semantics, semantics_layout)
"""Modules beside this one that decide what a report of a part says."""

_KNOWN: dict[Part, PartReport] = {}
"""Reports that this process has made or read."""


def _key(part: Part) -> str:
    """Key of the report on disk: changes with every source file of a part and with the converter."""
    plain = {**asdict(part), "config": part.config.to_dict()}
    sources = _sources(get_block(part.config.name).__module__.split(".")[0])
    text = json.dumps([plain, sources, version("coremltools"), version("torch")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _file(part: Part) -> Path:
    return default_cache_dir() / "parts" / f"{_key(part)}.json"


def _known(part: Part) -> PartReport | None:
    if part not in _KNOWN and (path := _file(part)).exists():
        _KNOWN[part] = PartReport.from_dict(read_json(path))
    return _KNOWN.get(part)


class _SideBySide(nn.Module):
    """Parts that have nothing to do with each other, in one program: most of a conversion's time is per program."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.counts = [1 + bool(part.added_to) for part in parts]
        self.parts = nn.ModuleList(map(_Alone, parts))

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
        examples = [example for part in parts for example in _examples(part)]
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
    return PartReport(problem, steps_of(operations), peak_activations(operations), weight_bytes(operations))


def _examples(part: Part) -> tuple[Tensor, ...]:
    """What goes in. Zeros take no memory until somebody reads them, which nobody does."""
    frames, height, width = part.grid
    clips, frames = (frames, 1) if part.images else (1, frames)
    x = torch.zeros(clips, part.in_channels, frames, height, width)
    if part.incoming == "frames":
        x = x.view(clips * frames, part.in_channels, height, width)
    return (x, torch.zeros(part.added_to)) if part.added_to else (x,)


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
