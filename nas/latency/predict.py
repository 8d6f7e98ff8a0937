"""Predicted latency: every operation is charged for its compute, its off-chip traffic and its high-rank copies.

    ms = a * effective GMACs + b * MB beyond the on-chip memory + c * MB of copies above rank 5

The three coefficients come from a device's profile (`fit.py`); nothing here is measured.
"""

from collections.abc import Iterable
from math import ceil

from nas.latency.operations import Operation
from nas.latency.profile import TERMS, Machine, Profile


def predict(operations: Iterable[Operation], profile: Profile, num_frames: int) -> tuple[float, dict[str, float]]:
    """Milliseconds per frame of a decode of `num_frames` frames, in all and by stage in the order of execution."""
    by_stage: dict[str, float] = {}
    for operation in operations:
        terms = cost_terms(operation, profile.machine)
        ms = sum(profile.coefficients[name] * terms[name] for name in TERMS)
        by_stage[operation.stage] = by_stage.get(operation.stage, 0.0) + ms / num_frames
    return sum(by_stage.values()), by_stage


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
