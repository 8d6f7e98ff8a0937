"""Predicted latency: the sum of what a device's profile charges for every operation. Nothing here is measured.

The profiles that come with the program charge for compute and for off-chip traffic (`cost_terms`):

    ms = a * effective GMACs + b * MB beyond the on-chip memory

Those that `python -m nas.latency calibrate` makes have coefficients for each cost class (`calibrated_terms.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nas.latency.prediction.calibrated_profile import CalibratedProfile
from nas.latency.prediction.calibrated_terms import TERMS_OF
from nas.latency.prediction.operations import Operation, UnknownOperationError
from nas.latency.prediction.profile import TERMS, Machine, Profile
from nas.latency.record import Runtime


@dataclass(frozen=True)
class Prediction:
    """Milliseconds per frame of one decode."""

    total: float
    """Milliseconds per frame of the whole decode."""
    by_stage: dict[str, float]
    """Milliseconds per frame of each stage, in the order of execution; they add up to the total."""
    units: str = ""
    """Setting of the compute units that is predicted to be the fastest; "" where there is no choice."""


Cost = Callable[[Operation], float]
"""Milliseconds of one operation."""


def predict(operations: Iterable[Operation], profile: Profile | CalibratedProfile, num_frames: int) -> Prediction:
    """Latency of a decode of `num_frames` frames.

    Raises:
        UnknownOperationError: the profile knows no cost of an operation.
    """
    return _fastest(list(operations), costs_of(profile), num_frames)


def costs_of(profile: Profile | CalibratedProfile) -> dict[str, Cost]:
    """What a profile charges for an operation, by setting of the compute units ("" where there is no choice)."""
    if isinstance(profile, Profile):
        return {"": _chip_cost(profile)}
    return _calibrated_costs(profile.coefficients, profile.runtime)


def fastest(
    operations: Sequence[Operation],
    coefficients: Mapping[str, Mapping[str, float]],
    runtime: Runtime,
    num_frames: int,
) -> Prediction:
    """Prediction for the fastest setting of the compute units, by the coefficients of each setting."""
    return _fastest(operations, _calibrated_costs(coefficients, runtime), num_frames)


def sum_by_stage(charges: Iterable[tuple[str, float]], units: str) -> Prediction:
    """The prediction for one setting of the compute units.

    Args:
        charges: stage and milliseconds per frame of each operation, in the order of execution.
        units: the setting.
    """
    by_stage: dict[str, float] = {}
    for stage, milliseconds in charges:
        by_stage[stage] = by_stage.get(stage, 0.0) + milliseconds
    return Prediction(sum(by_stage.values()), by_stage, units)


def _fastest(operations: Sequence[Operation], costs: Mapping[str, Cost], num_frames: int) -> Prediction:
    every = [
        sum_by_stage(((each.stage, cost(each) / num_frames) for each in operations), units)
        for units, cost in costs.items()
    ]
    return min(every, key=lambda prediction: prediction.total)


def _calibrated_costs(coefficients: Mapping[str, Mapping[str, float]], runtime: Runtime) -> dict[str, Cost]:
    return {units: calibrated_cost(of_units, runtime) for units, of_units in coefficients.items()}


def _chip_cost(profile: Profile) -> Cost:
    """Milliseconds of an operation by the two terms."""

    def cost(operation: Operation) -> float:
        terms = cost_terms(operation, profile.machine)
        return sum(profile.coefficients[name] * terms[name] for name in TERMS)

    return cost


def calibrated_cost(coefficients: Mapping[str, float], runtime: Runtime) -> Cost:
    """Milliseconds of an operation by the coefficients of its cost class; `UnknownOperationError` if they lack it."""

    def cost(operation: Operation) -> float:
        terms = TERMS_OF[runtime](operation)
        unknown = [name for name in terms if name not in coefficients]
        if unknown:
            raise UnknownOperationError(
                f"the profile knows no cost of {unknown[0].split('.')[0]} operations such as {operation.name} "
                f"(in '{operation.stage}'): calibrate again with this version"
            )
        return sum(coefficients[name] * amount for name, amount in terms.items())

    return cost


def cost_terms(operation: Operation, machine: Machine) -> dict[str, float]:
    """What an operation is charged for, by the names in `nas.latency.prediction.profile.TERMS`."""
    moved = machine.megabytes(operation.reads), machine.megabytes(operation.writes)
    return {
        "gmacs": operation.macs / 1e9 * _compute_factor(operation, machine),
        "off_chip_mb": sum(max(0.0, size - machine.on_chip_mb) for size in moved),
    }


def _compute_factor(operation: Operation, machine: Machine) -> float:
    """Time per multiply-accumulate relative to a wide dense convolution."""
    if operation.cost_class == "depthwise_conv":
        return machine.depthwise_factor
    if operation.cost_class == "conv":
        return machine.lane_factor(operation.channels_in)
    return 1.0
