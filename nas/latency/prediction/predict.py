"""Predicted latency: the sum of what a device's profile charges for every operation. Nothing here is measured.

The profiles that come with the program charge for compute and for off-chip traffic (`cost_terms`):

    ms = a * effective GMACs + b * MB beyond the on-chip memory

Those that `python -m nas.latency calibrate` makes have coefficients for each cost class (`calibrated_terms.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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


def predict(operations: Iterable[Operation], profile: Profile | CalibratedProfile, num_frames: int) -> Prediction:
    """Latency of a decode of `num_frames` frames.

    Raises:
        UnknownOperationError: the profile knows no cost of an operation.
    """
    if isinstance(profile, Profile):
        return _sum(operations, _chip_cost(profile), num_frames)
    return fastest(list(operations), profile.coefficients, profile.runtime, num_frames)


def fastest(
    operations: Sequence[Operation],
    coefficients: Mapping[str, Mapping[str, float]],
    runtime: Runtime,
    num_frames: int,
) -> Prediction:
    """Prediction for the fastest setting of the compute units, by the coefficients of each setting."""
    every = [
        replace(_sum(operations, calibrated_cost(of_units, runtime), num_frames), units=units)
        for units, of_units in coefficients.items()
    ]
    return min(every, key=lambda prediction: prediction.total)


def _sum(operations: Iterable[Operation], cost: Callable[[Operation], float], num_frames: int) -> Prediction:
    by_stage: dict[str, float] = {}
    for operation in operations:
        by_stage[operation.stage] = by_stage.get(operation.stage, 0.0) + cost(operation) / num_frames
    return Prediction(sum(by_stage.values()), by_stage)


def _chip_cost(profile: Profile) -> Callable[[Operation], float]:
    """Milliseconds of an operation by the two terms."""

    def cost(operation: Operation) -> float:
        terms = cost_terms(operation, profile.machine)
        return sum(profile.coefficients[name] * terms[name] for name in TERMS)

    return cost


def calibrated_cost(coefficients: Mapping[str, float], runtime: Runtime) -> Callable[[Operation], float]:
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
