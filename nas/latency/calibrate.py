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

import numpy as np
import numpy.typing as npt

from blocks import NotBuildableError
from nas.latency.devices import LatencyDevice, operations_on
from nas.latency.prediction.calibrated_profile import CalibratedProfile, CalibrationPoint
from nas.latency.prediction.calibrated_terms import TERMS_OF
from nas.latency.prediction.operations import Operation
from nas.latency.prediction.predict import fastest
from nas.latency.record import LatencyRecord, Runtime, Workload
from nas.terminal.errors import UserError
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, SearchSpace, build_skeleton
from search_spaces.choices import RandomChooser

Floats = npt.NDArray[np.float64]

_LATENTS = (
    LatentSpec(channels=16, spatial=8, temporal=4),
    LatentSpec(channels=48, spatial=16, temporal=4),
    LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
)
"""Latents of Wan 2.1, HunyuanVideo and CogVideoX; of Wan 2.2; of LTX-Video."""

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
    """Architecture of the decoder."""
    workload: Workload
    """Size of the decode."""

    def build(self, *, weights: bool) -> Decoder:
        """The decoder, on the meta device if it needs no weights."""
        return Decoder(self.config) if weights else build_skeleton(self.config)


@functools.cache
def operations_of(program: Program, runtime: Runtime) -> tuple[Operation, ...]:
    """Everything that the decode executes."""
    decoder = program.build(weights=False)
    return tuple(operations_on(runtime, decoder, program.config.latents, program.workload))


def design_programs(
    count: int, held_out: int, seed: int, gmacs: tuple[float, float]
) -> tuple[list[Program], list[Program]]:
    """Decodes to fit to and decodes to judge by; no architecture is in both.

    Args:
        count: decodes to fit to; more are added until every part of every space occurs three times among them.
        held_out: decodes to judge by.
        seed: random seed of the choice.
        gmacs: fewest and most multiply-accumulates of a decode, in billions.
    """
    generator = random.Random(seed)
    seen: set[str] = set()

    def draw() -> Program:
        while True:
            space, latents = generator.choice(list(SEARCH_SPACES.values())), generator.choice(_LATENTS)
            config = space.suggest(RandomChooser(generator), latents)
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


def fit_coefficients(
    programs: Sequence[Program], records: Sequence[LatencyRecord], runtime: Runtime
) -> dict[str, dict[str, float]]:
    """Milliseconds per unit of each term, by setting of the compute units: non-negative weighted least squares.

    A setting counts where it could run all of the programs.
    """
    every = [_by_units(record) for record in records]
    settings = [units for units in every[0] if all(units in each for each in every)]
    if not settings:
        raise UserError("no setting of the compute units could run every one of the decoders: choose other --gmacs")
    return {units: _solve(_equations(programs, [each[units] for each in every], runtime)) for units in settings}


def make_profile(
    fitted: Sequence[Program],
    fitted_records: Sequence[LatencyRecord],
    unseen: Sequence[Program],
    unseen_records: Sequence[LatencyRecord],
    runtime: Runtime,
    passes: int,
) -> CalibratedProfile:
    """Fit to the first, judge by the second."""
    from scipy.stats import spearmanr

    coefficients = fit_coefficients(fitted, fitted_records, runtime)

    def judge(program: Program, record: LatencyRecord) -> CalibrationPoint:
        frames = program.workload.num_frames
        return CalibrationPoint(
            decoder=program.config.summary(),
            digest=program.config.digest(),
            **program.workload.to_dict(),
            measured_ms=record.ms_per_frame * frames,
            predicted_ms=fastest(operations_of(program, runtime), coefficients, runtime, frames).total * frames,
        )

    points = tuple(map(judge, unseen, unseen_records))
    errors = np.array([abs(point.error) for point in points])
    ranks = spearmanr([point.measured_ms for point in points], [point.predicted_ms for point in points])
    first = fitted_records[0]
    return CalibratedProfile(
        device=_device(first),
        method=f"fastest of {passes} passes, each the {first.method}",
        runtime=runtime,
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


Times = dict[str, float]
"""Milliseconds per frame by stage, or of the whole under one name."""
Equation = tuple[dict[str, float], float]
"""Amounts of the terms, and the milliseconds that they took together."""


def _by_units(record: LatencyRecord) -> dict[str, Times]:
    """What was measured with each setting of the compute units; under "" where there is no choice."""
    units = record.details.get("units")
    if units is None:
        return {"": record.by_stage}
    return {name: {"": found["statistics"]["median_ms"] / record.num_frames} for name, found in units.items()}


def _device(record: LatencyRecord) -> str:
    """What measured; without the setting of the compute units, where there is a choice."""
    units = record.details.get("units")
    return record.device if units is None else f"{next(iter(units.values()))['device']}, Core ML"


def _equations(programs: Sequence[Program], times: Sequence[Times], runtime: Runtime) -> list[Equation]:
    """What the measurements say about the terms: by stage where that is known, else one equation for the whole."""
    found: list[Equation] = []
    for program, by_stage in zip(programs, times, strict=True):
        operations = operations_of(program, runtime)
        stages = {operation.stage for operation in operations}
        frames = program.workload.num_frames
        if stages <= by_stage.keys():
            groups = {name: [each for each in operations if each.stage == name] for name in stages}
            found += [(_total_terms(group, runtime), frames * by_stage[name]) for name, group in groups.items()]
        else:
            found.append((_total_terms(operations, runtime), frames * sum(by_stage.values())))
    return found


def _total_terms(operations: Iterable[Operation], runtime: Runtime) -> dict[str, float]:
    total: dict[str, float] = {}
    for operation in operations:
        for name, amount in TERMS_OF[runtime](operation).items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _solve(equations: Sequence[Equation]) -> dict[str, float]:
    from scipy.optimize import nnls

    names = sorted({name for amounts, _ in equations for name in amounts})
    measured = np.array([ms for _, ms in equations])
    design = np.array([[amounts.get(name, 0.0) for name in names] for amounts, _ in equations])
    weights = measured**-_WEIGHT
    coefficients, _ = nnls(design * weights[:, None], measured * weights, maxiter=100 * len(names))
    return dict(zip(names, map(float, coefficients), strict=True))


def _workloads(config: DecoderConfig, gmacs: tuple[float, float]) -> list[Workload]:
    """The decodes that are neither trivial nor long to run, by multiply-accumulates; none if it is large or unfit."""
    latents = config.latents
    sizes = [size for size in _SIZES if size % latents.spatial == 0]
    frames = [latents.num_frames(count) for count in _LATENT_FRAMES]
    smallest = Program(config, Workload(sizes[0], sizes[0], frames[0]))
    try:
        skeleton = smallest.build(weights=False)
    except NotBuildableError:  # a part that is not there at this width; what is drawn next may be
        return []
    if sum(each.numel() for each in skeleton.parameters()) > _LARGEST_PARAMETERS:
        return []
    least = sum(operation.macs for operation in operations_of(smallest, "pytorch")) / 1e9 / (sizes[0] ** 2 * frames[0])
    every = (Workload(*grid) for grid in product(sizes, sizes, frames))
    return [load for load in every if gmacs[0] <= least * load.height * load.width * load.num_frames <= gmacs[1]]


def _parts(config: DecoderConfig) -> set[str]:
    in_stages = (part for stage in config.stages for part in (stage.block, stage.upsampler))
    return {part.name for part in (config.stem, config.head, config.shortcut, *in_stages) if part is not None}


def _parts_of_space(space: SearchSpace) -> set[str]:
    blocks = {name for level in space.levels for name in level.blocks}
    ends = {*space.stems, *space.heads, *space.plain_heads}
    return {*ends, *space.middles, *space.upsamplers, *space.shortcuts, *blocks}
