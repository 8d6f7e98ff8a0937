"""Whether a decoder can ship as a Core ML program, before it is trained.

Each part is converted alone, at a small size, and what was found is kept: on disk under the cache folder, so that most
candidates of a search cost nothing. Sizes are checked on the whole decoder without computing it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import blocks
from blocks import BlockConfig, TimeContext, build_block, get_block
from blocks.time_context import Layout, TemporalMode, to_layout
from nas.export.coreml import to_mil
from nas.export.evaluator import unknown_operations
from nas.export.program import HIGHEST_RANK, from_mil
from nas.files import default_cache_dir, disk_errors, read_json, write_json
from nas.latency import Workload
from search_spaces import Decoder, DecoderConfig

_NEURAL_ENGINE_AXES = {4: (65536, 65536, 16384, 16384), 5: (65536, 65536, 16384, 16384, 16384)}
"""Longest axes of a tensor (n, c, h, w) or (n, c, d, h, w) on the Neural Engine, as Core ML's own error message gives
them ("Tensor dimensions ... are not within supported range", iOS 26). Others run on the GPU or CPU."""


@dataclass(frozen=True)
class PartReport:
    """What converting one part alone has shown."""

    problem: str = ""
    """Why it cannot ship; empty if it can."""
    transposes: int = 0
    reshapes: int = 0


@dataclass(frozen=True)
class LintReport:
    """What keeps a decoder from a phone, and what slows it down there."""

    problems: tuple[str, ...]
    """Why it cannot ship, part by part; empty if it can."""
    warnings: tuple[str, ...]
    """What runs, but not on the Neural Engine; looked for where it can ship."""
    moves: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Transposes and reshapes of each stage."""

    @property
    def ships(self) -> bool:
        """Whether it can be exported."""
        return not self.problems


@dataclass(frozen=True)
class _Part:
    """A part as it is converted: with few channels, of which only how they relate matters."""

    config: BlockConfig
    in_channels: int
    geometry: tuple[tuple[str, int], ...]
    incoming: Layout
    outgoing: Layout
    mode: TemporalMode
    drop_leading: bool

    def key(self) -> str:
        """Of its report on disk: changes with every source file of a part and with the converter."""
        plain = {**asdict(self), "config": self.config.to_dict()}
        text = json.dumps([plain, _sources(), version("coremltools"), version("torch")], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class _Alone(nn.Module):
    """A part between the layouts of its neighbours."""

    def __init__(self, part: _Part) -> None:
        super().__init__()
        self.part = part
        self.block = build_block(part.config, part.in_channels, **dict(part.geometry))

    def forward(self, x: Tensor) -> Tensor:
        """One clip in one shot."""
        time = TimeContext(1, self.part.mode, drop_leading=self.part.drop_leading)
        x = self.block(to_layout(x, self.part.incoming, self.block.input_layout, time), time)
        return to_layout(x, self.block.output_layout, self.part.outgoing, time)


def lint(config: DecoderConfig, workload: Workload) -> LintReport:
    """Find out whether a decoder can be exported for a decode of this size.

    Raises:
        ValueError: the size is not on the grid of the latents.
    """
    shape = config.latents.latent_shape(workload.num_frames, workload.height, workload.width)
    drop = config.latents.drops_leading(shape[1])
    problems: dict[str, None] = {}
    moves: dict[str, tuple[int, int]] = {}
    for stage, part in _parts(config, drop):
        report = _inspect(part)
        if report.problem:
            problems[f"{stage}: {part.config.name}: {report.problem}"] = None
        transposes, reshapes = moves.get(stage, (0, 0))
        moves[stage] = transposes + report.transposes, reshapes + report.reshapes
    warnings = [] if problems else _oversized(config, shape)
    return LintReport(tuple(problems), tuple(warnings), moves)


def _parts(config: DecoderConfig, drop_leading: bool) -> Iterator[tuple[str, _Part]]:
    """Every part with its stage, in the order of execution."""
    layout: Layout = "video"

    def part(block: BlockConfig, in_channels: int, geometry: dict[str, int], outgoing: Layout | None = None) -> _Part:
        nonlocal layout
        incoming, layout = layout, outgoing or get_block(block.name).output_layout
        shape = tuple(geometry.items())
        return _Part(block, in_channels, shape, incoming, layout, config.temporal_mode, drop_leading)

    width, latents = config.stages[0].width, config.latents
    yield "stem", part(config.stem, latents.channels, {"out_channels": _FEW})
    for index, stage in enumerate(config.stages):
        factors = {"temporal_factor": stage.temporal_factor, "spatial_factor": stage.spatial_factor}
        steps: list[tuple[BlockConfig | None, dict[str, int]]] = [(stage.transition, {}), (stage.upsampler, factors)]
        for block, geometry in [*steps, *[(stage.block, {})] * stage.depth]:
            if block is not None:
                few_in, few_out = _few_channels(width, stage.width)
                yield f"stage{index}", part(block, few_in, {"out_channels": few_out, **geometry})
                width = stage.width
    yield "head", part(config.head, _FEW, {"spatial_factor": config.head_factor}, "video")
    if config.shortcut is not None:
        layout = "video"
        yield "shortcut", part(config.shortcut, latents.channels, latents.patch_geometry(), "video")


_FEW = 64
"""Channels at which parts are converted."""


def _few_channels(wide_in: int, wide_out: int) -> tuple[int, int]:
    """Few channels that relate as these do: equal, a multiple, or neither."""
    if wide_in == wide_out:
        return _FEW, _FEW
    more, less = max(wide_in, wide_out), min(wide_in, wide_out)
    few = (_FEW if more % less == 0 else 3 * _FEW // 4, _FEW // 2)
    return few if wide_in > wide_out else (few[1], few[0])


@lru_cache(maxsize=1024)
def _inspect(part: _Part) -> PartReport:
    """The part's report, from disk if it is there."""
    path = default_cache_dir() / "lint" / f"{part.key()}.json"
    if path.exists():
        return PartReport(**read_json(path))
    report = _convert(part)
    with disk_errors("cannot keep what was found about a part"):
        write_json(path, asdict(report))
    return report


def _convert(part: _Part) -> PartReport:
    channels, frames = part.in_channels, 3
    shape = (1, channels, frames, 4, 6) if part.incoming == "video" else (frames, channels, 4, 6)
    try:
        with torch.random.fork_rng(devices=[]):
            module = _Alone(part)
        program = from_mil(to_mil(module, torch.zeros(shape)))
    except Exception as error:  # of torch.export and coremltools, which raise many kinds: that is the finding
        return PartReport(problem=f"not convertible: {' '.join(str(error).split())[:200]}")
    high = sorted({step.kind for step in program.operations for out in step.results if out.rank > HIGHEST_RANK})
    unknown = unknown_operations(program)
    problem = ""
    if high:
        problem = f"tensors of more than {HIGHEST_RANK} axes in {', '.join(high)}"
    elif unknown:
        problem = f"operations that cannot be proven: {', '.join(unknown)}"
    kinds = [step.kind for step in program.operations]
    return PartReport(problem, kinds.count("transpose"), kinds.count("reshape"))


def _oversized(config: DecoderConfig, shape: tuple[int, ...]) -> list[str]:
    """Tensors that do not fit the Neural Engine."""
    recorder = _Largest()
    with torch.device("meta"), torch.no_grad():
        decoder, latents = Decoder(config).eval(), torch.empty(1, *shape)
        with recorder:
            decoder(latents)
    return [f"a tensor {found} is larger than the Neural Engine takes" for found in sorted(recorder.found)]


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the shapes of results that are beyond the Neural Engine's."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            limits = _NEURAL_ENGINE_AXES.get(out.ndim, ())
            if any(size > limit for size, limit in zip(out.shape, limits, strict=False)):
                self.found.add(tuple(out.shape))
        return out


@lru_cache(maxsize=1)
def _sources() -> str:
    """Hash of everything that parts are made of."""
    digest = hashlib.sha256()
    for folder in blocks.__path__:
        for file in sorted(Path(folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
