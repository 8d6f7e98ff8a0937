"""Calibrate a profile: measure a designed set of small decoders on a device, fit, judge the fit on decoders unseen.

A device that reports the time of each stage gives one equation per stage, any other one per decoder. Everything is
measured in several passes, the decoders taking turns, and the fastest pass counts: what else runs on a machine can only
add time.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata

import numpy as np
import numpy.typing as npt

from nas.latency.calibration_design import Program, operations_of
from nas.latency.devices import LatencyDevice
from nas.latency.prediction.calibrated_profile import CalibratedProfile, CalibrationPoint
from nas.latency.prediction.calibrated_terms import TERMS_OF
from nas.latency.prediction.operations import Operation
from nas.latency.prediction.predict import fastest
from nas.latency.record import LatencyRecord, MeasurementFailedError, Runtime
from nas.terminal.errors import UserError

Floats = npt.NDArray[np.float64]

_WEIGHT = 0.75
"""Errors are divided by the measured time to this power: short stages are timed less precisely than long ones."""


def measure_programs(
    device: LatencyDevice, programs: Sequence[Program], passes: int, progress: Callable[[int, int], None]
) -> list[LatencyRecord]:
    """The fastest of several measurements of each program, all programs taking turns.

    Raises:
        UserError: the device cannot run one of them; it says itself why if it cannot be used.
    """
    fastest: dict[int, LatencyRecord] = {}
    for turn in range(passes):
        for index, program in enumerate(programs):
            decoder = program.build(weights=device.needs_weights)
            try:
                record = device.latency(decoder, program.config.latents, program.workload)
            except MeasurementFailedError as error:
                size = program.workload.describe()
                raise UserError(
                    f"the device cannot run {program.config.summary()} at {size} ({error}): choose smaller --gmacs"
                ) from error
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
