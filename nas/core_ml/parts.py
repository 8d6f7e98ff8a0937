"""What each part of a decoder becomes in a Core ML program, found by converting it alone at its own size.

Nothing is computed. What was found is kept on disk under the cache folder, so that most candidates of a search, which
share parts, cost little.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import blocks
from blocks import Block, BlockConfig, TimeContext, build_block, get_block
from blocks.time_context import Layout, TemporalMode, to_layout
from nas.core_ml import convert, interpreter, program, semantics, semantics_layout, steps
from nas.core_ml.convert import to_mil
from nas.core_ml.interpreter import unknown_operations
from nas.core_ml.program import HIGHEST_RANK, Operation, Program, from_mil
from nas.core_ml.steps import Shape, Step, steps_of
from nas.machine.files import default_cache_dir, disk_errors, read_json, write_json
from nas.terminal.errors import UserError
from search_spaces import Decoder, DecoderConfig


class UntraceablePartError(Exception):
    """A part asks for the values of what it is given; the message names it and its stage."""


@dataclass(frozen=True)
class PartReport:
    """What converting one part alone has shown."""

    problem: str
    """Why it cannot ship; empty if it can."""
    steps: tuple[Step, ...]
    """Its program, in the order of execution; nothing if it cannot be converted."""

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PartReport":
        """Inverse of `to_dict`."""
        return cls(data["problem"], tuple(Step.from_dict(step) for step in data["steps"]))


@dataclass(frozen=True)
class Part:
    """A part at its place in a decoder, for one clip of one size."""

    config: BlockConfig
    in_channels: int
    geometry: tuple[tuple[str, int], ...]
    """What else it is built with."""
    grid: tuple[int, int, int]
    """Frames, height and width of what goes in."""
    incoming: Layout
    outgoing: Layout
    """Of the part after it; of the frames that a shortcut is added to."""
    mode: TemporalMode
    drop_leading: bool
    added_to: Shape = ()
    """What a shortcut is added to, in the outgoing layout."""
    ends: bool = False
    """Whether what it returns are the decoder's frames."""

    def key(self) -> str:
        """Of its report on disk: changes with every source file of a part and with the converter."""
        plain = {**asdict(self), "config": self.config.to_dict()}
        sources = _sources(get_block(self.config.name).__module__.split(".")[0])
        text = json.dumps([plain, sources, version("coremltools"), version("torch")], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class _Alone(nn.Module):
    """A part between the layouts of its neighbours, and what the decoder does to the frames at its end."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.block = build_block(part.config, part.in_channels, **dict(part.geometry))

    def forward(self, x: Tensor, *network: Tensor) -> Tensor:
        """One clip in one shot; a shortcut is added to the network's frames."""
        part = self.part
        time = TimeContext(1, part.mode, drop_leading=part.drop_leading)
        x = self.block(to_layout(x, part.incoming, self.block.input_layout, time), time)
        x = to_layout(x, self.block.output_layout, part.outgoing, time)
        for frames in network:
            x = frames + x
        return to_layout(x, part.outgoing, "video", time).clamp(-1, 1) if part.ends else x


def decoder_parts(config: DecoderConfig, num_frames: int, height: int, width: int) -> list[tuple[str, Part]]:
    """Every part with its stage (stem, stage0, ..., head, shortcut), in the order of execution.

    Raises:
        ValueError: the frames are not on the grid of the latents.
        UntraceablePartError: what a part does depends on data.
    """
    shape = config.latents.latent_shape(num_frames, height, width)
    with torch.device("meta"), torch.no_grad():
        decoder, latents = Decoder(config).eval(), torch.empty(1, *shape)
        placed = list(_placed(decoder))
        passed: list[tuple[Tensor, Tensor]] = []
        for _, _, block, _ in placed:
            block.register_forward_hook(lambda _, arguments, out: passed.append((arguments[0], out)))
        try:
            decoder(latents)
        except RuntimeError as error:
            stage, config_of_part, _, _ = placed[min(len(passed), len(placed) - 1)]
            reason = f"not convertible: it cannot be traced without data ({error})"
            raise UntraceablePartError(f"{stage}: {config_of_part.name}: {reason}") from error
    found: list[tuple[str, Part]] = []
    layout: Layout = "video"
    before = latents
    for (stage, config_of_part, block, geometry), (x, out) in zip(placed, passed, strict=True):
        video, shortcut = block.input_layout == "video", stage == "shortcut"
        part = Part(
            config_of_part,
            in_channels=int(x.shape[1]),
            geometry=tuple(geometry.items()),
            grid=(int(x.shape[2 if video else 0]), int(x.shape[-2]), int(x.shape[-1])),
            # A shortcut sees the latents, not what the head returned, and is added in the head's layout.
            incoming="video" if shortcut else layout,
            outgoing=layout if shortcut else block.output_layout,
            mode=config.temporal_mode,
            drop_leading=config.latents.drops_leading(shape[1]),
            added_to=tuple(before.shape) if shortcut else (),
            ends=block is placed[-1][2],
        )
        found.append((stage, part))
        layout, before = block.output_layout, out
    return found


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


def _placed(decoder: Decoder) -> Iterator[tuple[str, BlockConfig, Block, dict[str, int]]]:
    """Stage, config, module and geometry of every part in the order of execution."""
    config = decoder.config
    groups = decoder.stage_modules()
    yield "stem", config.stem, _block(groups["stem"]), {"out_channels": config.stages[0].width}
    for index, stage in enumerate(config.stages):
        name = f"stage{index}"
        factors = {"temporal_factor": stage.temporal_factor, "spatial_factor": stage.spatial_factor}
        configs = [(stage.transition, {}), (stage.upsampler, factors), *[(stage.block, {})] * stage.depth]
        present = [(part, geometry) for part, geometry in configs if part is not None]
        modules = [module for parts in groups[name].children() for module in parts.children()]
        for (part, geometry), module in zip(present, modules, strict=True):
            yield name, part, _block(module), {"out_channels": stage.width, **geometry}
    yield "head", config.head, _block(groups["head"]), {"spatial_factor": config.head_factor}
    if config.shortcut is not None:
        yield "shortcut", config.shortcut, _block(groups["shortcut"]), config.latents.patch_geometry()


def _block(module: nn.Module) -> Block:
    assert isinstance(module, Block)
    return module


_CONVERTERS = (convert, program, steps, interpreter, semantics, semantics_layout)
"""The modules beside this one that decide what is found about a part."""

_KNOWN: dict[Part, PartReport] = {}
"""What this process has seen."""


def _file(part: Part) -> Path:
    return default_cache_dir() / "parts" / f"{part.key()}.json"


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
    high = sorted({step.kind for step in operations for out in step.results if out.rank > HIGHEST_RANK})
    unknown = unknown_operations(operations)
    problem = ""
    if high:
        problem = f"tensors of more than {HIGHEST_RANK} axes in {', '.join(high)}"
    elif unknown:
        problem = f"operations that cannot be proven: {', '.join(unknown)}"
    return PartReport(problem, steps_of(operations))


def _examples(part: Part) -> tuple[Tensor, ...]:
    """What goes in. Zeros take no memory until somebody reads them, which nobody does."""
    frames, height, width = part.grid
    x = torch.zeros(1, part.in_channels, frames, height, width)
    if part.incoming == "frames":
        x = x.view(frames, part.in_channels, height, width)
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
        raise UserError(f"a part is defined in '{package}', which is no file: put it into a module and import that")
    return [Path(str(module.__file__))]
