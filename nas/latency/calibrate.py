"""Calibrate a profile: measure a designed set of small decoders on a device, fit, judge the fit on decoders unseen.

Decoders are drawn from the search spaces for three geometries of latents, at sizes that keep a decode short, and more
are drawn until every part of the spaces is among them. A device that reports the time of each stage gives one equation
per stage, any other one per decoder. Everything is measured in several passes, the decoders taking turns, and the
fastest pass counts: what else runs on a machine can only add time.
"""

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas.latency.calibrated_profile import CalibratedProfile, CalibrationPoint
from nas.latency.devices import LatencyDevice
from nas.latency.kind_terms import kind_terms
from nas.latency.operations import Operation, list_operations
from nas.latency.predict import kind_cost
from nas.latency.record import LatencyRecord, Workload
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, SearchSpace

Floats = npt.NDArray[np.float64]

_LATENTS = (
    LatentSpec(channels=16, spatial=8, temporal=4),
    LatentSpec(channels=48, spatial=16, temporal=4),
    LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
)
"""Wan 2.1, HunyuanVideo, CogVideoX; Wan 2.2; LTX-Video."""

_SIZES = (64, 96, 128, 160)
_LATENT_FRAMES = (2, 3)
_TIMES_EACH_PART = 3
_LARGEST_PARAMETERS = 20e6

_WEIGHT = 0.75
"""Errors are divided by the measured time to this power: short stages are timed less precisely than long ones."""


@dataclass(frozen=True)
class Program:
    """A decode to measure."""

    config: DecoderConfig
    workload: Workload

    def build(self, *, weights: bool) -> Decoder:
        """The decoder, on the meta device if it needs no weights."""
        with torch.device("cpu" if weights else "meta"):
            return Decoder(self.config)


@functools.cache
def operations_of(program: Program) -> tuple[Operation, ...]:
    """Everything that the decode executes."""
    load = program.workload
    shape = (1, *program.config.latents.latent_shape(load.num_frames, load.height, load.width))
    return tuple(list_operations(program.build(weights=False), shape))


class _Draw:
    """Decides every choice of a space at random."""

    def __init__(self, generator: random.Random) -> None:
        self._generator = generator

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`."""
        return self._generator.choice(list(choices))


def design_programs(
    count: int, held_out: int, seed: int, gmacs: tuple[float, float]
) -> tuple[list[Program], list[Program]]:
    """Decodes to fit to and decodes to judge by; no architecture is in both.

    Args:
        count: decodes to fit to; more are added until every part of every space occurs three times among them.
        held_out: decodes to judge by.
        seed: of the choice.
        gmacs: fewest and most multiply-accumulates of a decode, in billions.
    """
    generator = random.Random(seed)
    seen: set[str] = set()

    def draw() -> Program:
        while True:
            space, latents = generator.choice(list(SEARCH_SPACES.values())), generator.choice(_LATENTS)
            config = space.suggest(_Draw(generator), latents)
            workloads = [] if config.digest() in seen else _workloads(config, gmacs)
            if workloads:
                seen.add(config.digest())
                return Program(config, generator.choice(workloads))

    unseen = [draw() for _ in range(held_out)]
    fitted = [draw() for _ in range(count)]
    counts = Counter(part for program in fitted for part in _parts(program.config))
    wanted = {part for space in SEARCH_SPACES.values() for part in _parts_of_space(space)}
    while any(counts[part] < _TIMES_EACH_PART for part in wanted):
        program = draw()
        if any(counts[part] < _TIMES_EACH_PART for part in _parts(program.config) & wanted):
            fitted.append(program)
            counts.update(_parts(program.config))
    return fitted, unseen


def measure_programs(
    device: LatencyDevice, programs: Sequence[Program], passes: int, progress: Callable[[int, int], None]
) -> list[LatencyRecord]:
    """The fastest of several measurements of each program, all programs taking turns."""
    fastest: dict[int, LatencyRecord] = {}
    for turn in range(passes):
        for index, program in enumerate(programs):
            decoder = program.build(weights=device.needs_weights)
            record = device.latency(decoder, program.config.latents, program.workload)
            if index not in fastest or record.ms_per_frame < fastest[index].ms_per_frame:
                fastest[index] = record
            progress(turn * len(programs) + index + 1, passes * len(programs))
    return [fastest[index] for index in range(len(programs))]


def fit_coefficients(programs: Sequence[Program], records: Sequence[LatencyRecord]) -> dict[str, float]:
    """Milliseconds per unit of each term of `kind_terms`, non-negative, by weighted least squares."""
    from scipy.optimize import nnls

    amounts: list[dict[str, float]] = []
    times: list[float] = []
    for program, record in zip(programs, records, strict=True):
        for terms, ms in _equations(program, record):
            amounts.append(terms)
            times.append(ms)
    names = sorted({name for terms in amounts for name in terms})
    measured = np.array(times)
    design = np.array([[terms.get(name, 0.0) for name in names] for terms in amounts])
    weights = measured**-_WEIGHT
    coefficients, _ = nnls(design * weights[:, None], measured * weights, maxiter=100 * len(names))
    return dict(zip(names, map(float, coefficients), strict=True))


def make_profile(
    fitted: Sequence[Program],
    fitted_records: Sequence[LatencyRecord],
    unseen: Sequence[Program],
    unseen_records: Sequence[LatencyRecord],
    passes: int,
) -> CalibratedProfile:
    """Fit to the first, judge by the second."""
    from scipy.stats import spearmanr

    coefficients = fit_coefficients(fitted, fitted_records)
    cost = kind_cost(coefficients, unseen_records[0].device)
    points = tuple(_judge(program, record, cost) for program, record in zip(unseen, unseen_records, strict=True))
    errors = np.array([abs(point.error) for point in points])
    ranks = spearmanr([point.measured_ms for point in points], [point.predicted_ms for point in points])
    first = fitted_records[0]
    return CalibratedProfile(
        device=first.device,
        method=f"fastest of {passes} passes, each the {first.method}",
        dtype=first.dtype,
        coefficients=coefficients,
        typical_error=float(np.median(errors)),
        p90_error=float(np.percentile(errors, 90)),
        rank_correlation=float(ranks.statistic),
        points=points,
        fitted_to=len(fitted),
        fitted_on=datetime.now(UTC).isoformat(timespec="minutes"),
        tool_version=metadata.version("turbo-vaed-nas"),
    )


def _equations(program: Program, record: LatencyRecord) -> Iterable[tuple[dict[str, float], float]]:
    """What a measurement says about the terms: by stage where the device says so, else one equation for the whole."""
    operations = operations_of(program)
    stages = {operation.stage for operation in operations}
    if stages <= record.by_stage.keys():
        groups = {name: [each for each in operations if each.stage == name] for name in stages}
    else:
        groups = {"": list(operations)}
    frames = program.workload.num_frames
    for name, group in groups.items():
        yield _total_terms(group), frames * (record.by_stage[name] if name else record.ms_per_frame)


def _total_terms(operations: Iterable[Operation]) -> dict[str, float]:
    total: dict[str, float] = {}
    for operation in operations:
        for name, amount in kind_terms(operation).items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _judge(program: Program, record: LatencyRecord, cost: Callable[[Operation], float]) -> CalibrationPoint:
    return CalibrationPoint(
        decoder=program.config.summary(),
        digest=program.config.digest(),
        height=program.workload.height,
        width=program.workload.width,
        num_frames=program.workload.num_frames,
        measured_ms=record.ms_per_frame * program.workload.num_frames,
        predicted_ms=sum(map(cost, operations_of(program))),
    )


def _workloads(config: DecoderConfig, gmacs: tuple[float, float]) -> list[Workload]:
    """The decodes that are neither trivial nor long to run, by multiply-accumulates; none if it is large."""
    latents = config.latents
    sizes = [size for size in _SIZES if size % latents.spatial == 0]
    frames = [latents.num_frames(count) for count in _LATENT_FRAMES]
    smallest = Program(config, Workload(sizes[0], sizes[0], frames[0]))
    if sum(each.numel() for each in smallest.build(weights=False).parameters()) > _LARGEST_PARAMETERS:
        return []
    least = sum(operation.macs for operation in operations_of(smallest)) / 1e9 / (sizes[0] ** 2 * frames[0])
    every = (Workload(*grid) for grid in product(sizes, sizes, frames))
    return [load for load in every if gmacs[0] <= least * load.height * load.width * load.num_frames <= gmacs[1]]


def _parts(config: DecoderConfig) -> set[str]:
    in_stages = (part for stage in config.stages for part in (stage.block, stage.upsampler))
    return {part.name for part in (config.stem, config.head, config.shortcut, *in_stages) if part is not None}


def _parts_of_space(space: SearchSpace) -> set[str]:
    blocks = {name for level in space.levels for name in level.blocks}
    ends = {*space.stems, *space.heads, *space.plain_heads}
    return {*ends, *space.middles, *space.upsamplers, *space.shortcuts, *blocks}
