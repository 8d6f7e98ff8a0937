"""Whether a decoder can ship as a Core ML program, before it is trained: what its parts become, put together."""

from dataclasses import dataclass, field

from nas.core_ml.part_reports import inspect_parts
from nas.core_ml.parts import decoder_parts
from nas.latency import Workload
from search_spaces import Decoder, DecoderConfig

_NEURAL_ENGINE_AXES = {4: (65536, 65536, 16384, 16384), 5: (65536, 65536, 16384, 16384, 16384)}
"""Longest axes of a tensor (n, c, h, w) or (n, c, d, h, w) on the Neural Engine, as Core ML's own error message gives
them ("Tensor dimensions ... are not within supported range", iOS 26). Others run on the GPU or CPU."""


@dataclass(frozen=True)
class LintReport:
    """What keeps a decoder from a phone, and what slows it down there."""

    problems: tuple[str, ...]
    """Reasons why the decoder cannot ship, part by part; empty if it can."""
    warnings: tuple[str, ...]
    """Tensors that run, but not on the Neural Engine."""
    moves: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Numbers of transposes and of reshapes, by stage."""

    @property
    def ships(self) -> bool:
        """Whether it can be exported."""
        return not self.problems


def lint(decoder: Decoder | DecoderConfig, workload: Workload) -> LintReport:
    """Find out whether a decoder can be exported for a decode of this size; only its architecture counts.

    Raises:
        ValueError: the size is not on the grid of the latents.
        NotBuildableError: a part cannot be built for its place.
    """
    config = decoder.config if isinstance(decoder, Decoder) else decoder
    problems: dict[str, None] = {}
    oversized: dict[str, None] = {}
    moves: dict[str, tuple[int, int]] = {}
    parts = decoder_parts(config, workload.num_frames, workload.height, workload.width)
    reports = inspect_parts(part for _, part in parts)
    for stage, part in parts:
        report = reports[part]
        if report.problem:
            problems[f"{stage}: {part.config.name}: {report.problem}"] = None
        op_types = [step.op_type for step in report.steps]
        transposes, reshapes = moves.get(stage, (0, 0))
        moves[stage] = transposes + op_types.count("transpose"), reshapes + op_types.count("reshape")
        for shape in (shape for step in report.steps for shape in step.results):
            if any(size > limit for size, limit in zip(shape, _NEURAL_ENGINE_AXES.get(len(shape), ()), strict=False)):
                oversized[f"{stage}: a tensor {shape} is larger than the Neural Engine takes"] = None
    return LintReport(tuple(problems), tuple(oversized), moves)
