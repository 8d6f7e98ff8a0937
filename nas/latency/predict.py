"""Predicted latency: the sum of what a device's profile charges for every operation. Nothing here is measured.

The profiles that come with the program charge for compute, off-chip traffic and high-rank copies (`cost_terms`):

    ms = a * effective GMACs + b * MB beyond the on-chip memory + c * MB of copies above rank 5

Those that `python -m nas.latency calibrate` makes have coefficients for each kind of operation (`kind_terms.py`).
"""

from collections.abc import Callable, Iterable
from math import ceil

from nas.latency.calibrated_profile import CalibratedProfile
from nas.latency.kind_terms import kind_terms
from nas.latency.operations import Operation, UnknownOperationError
from nas.latency.profile import TERMS, Machine, Profile


def predict(
    operations: Iterable[Operation], profile: Profile | CalibratedProfile, num_frames: int
) -> tuple[float, dict[str, float]]:
    """Milliseconds per frame of a decode of `num_frames` frames, in all and by stage in the order of execution.

    Raises:
        UnknownOperationError: the profile knows no cost of an operation.
    """
    if isinstance(profile, CalibratedProfile):
        cost = kind_cost(profile.coefficients, profile.device)
    else:
        cost = _chip_cost(profile)
    by_stage: dict[str, float] = {}
    for operation in operations:
        by_stage[operation.stage] = by_stage.get(operation.stage, 0.0) + cost(operation) / num_frames
    return sum(by_stage.values()), by_stage


def _chip_cost(profile: Profile) -> Callable[[Operation], float]:
    """Milliseconds of an operation by the three terms."""

    def cost(operation: Operation) -> float:
        terms = cost_terms(operation, profile.machine)
        return sum(profile.coefficients[name] * terms[name] for name in TERMS)

    return cost


def kind_cost(coefficients: dict[str, float], device: str) -> Callable[[Operation], float]:
    """Milliseconds of an operation by the coefficients of its kind; `UnknownOperationError` if they lack it."""

    def cost(operation: Operation) -> float:
        terms = kind_terms(operation)
        unknown = [name for name in terms if name not in coefficients]
        if unknown:
            raise UnknownOperationError(
                f"the profile of {device} knows no cost of {unknown[0].split('.')[0]} operations such as "
                f"{operation.name} (in '{operation.stage}'): calibrate again with this version"
            )
        return sum(coefficients[name] * amount for name, amount in terms.items())

    return cost


def cost_terms(operation: Operation, machine: Machine) -> dict[str, float]:
    """What an operation is charged for, by the names in `nas.latency.profile.TERMS`."""
    off_chip = sum(
        max(0.0, moved / 1e6 - machine.on_chip_mb) for moved in (operation.bytes_read, operation.bytes_written)
    )
    return {
        "gmacs": operation.macs / 1e9 * _compute_factor(operation, machine),
        "off_chip_mb": off_chip,
        "high_rank_mb": operation.bytes_moved / 1e6 if operation.kind == "high_rank_movement" else 0.0,
    }


def _compute_factor(operation: Operation, machine: Machine) -> float:
    """Time per multiply-accumulate relative to a wide dense convolution."""
    if operation.kind == "depthwise_conv":
        return machine.depthwise_factor
    if operation.kind == "conv":
        channels, lanes = operation.channels_in, machine.channel_lanes
        return ceil(channels / lanes) * lanes / channels
    return 1.0
