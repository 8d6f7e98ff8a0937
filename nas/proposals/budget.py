"""What a proposer may ask about the budget before it proposes: nothing is trained or measured, and little converted."""

from math import inf
from typing import Protocol

from blocks import NotBuildableError
from nas.latency import Workload
from nas.latency.devices import LatencyDevice, PredictedDevice
from nas.latency.prediction.by_parts import LatencyByParts
from nas.terminal.errors import UserError
from search_spaces import DecoderConfig


class Budget(Protocol):
    """The limit on a number that every decoder has before it is trained."""

    def share(self, config: DecoderConfig) -> float:
        """Share of the budget that a decoder takes at least; infinite if it cannot be built. Nothing is converted."""

    def fits(self, config: DecoderConfig) -> bool:
        """Whether the decoder is within the budget."""


class PredictedBudget:
    """Milliseconds per frame that a device is predicted to take, summed over parts.

    Args:
        by_parts: predictions for the device and the decode.
        limit_ms: most milliseconds per frame.
    """

    def __init__(self, by_parts: LatencyByParts, limit_ms: float) -> None:
        self.by_parts = by_parts
        self.limit_ms = limit_ms

    def share(self, config: DecoderConfig) -> float:
        """A bound on the latency, divided by the limit."""
        try:
            return self.by_parts.at_least(config) / self.limit_ms
        except NotBuildableError:
            return inf

    def fits(self, config: DecoderConfig) -> bool:
        """Whether the predicted latency is within the budget; converts new parts of what may fit."""
        return self.by_parts.fits(config, self.limit_ms)


def budget_on(device: LatencyDevice, workload: Workload, limit_ms: float) -> PredictedBudget | None:
    """The budget on a device that predicts by parts; None for all others: there proposals are found over it by trial.

    Raises:
        UserError: the limit is not above 0.
    """
    if not limit_ms > 0:
        raise UserError(f"a budget is above 0 milliseconds per frame, got {limit_ms}")
    if isinstance(device, PredictedDevice) and device.runtime == "coreml":
        return PredictedBudget(device.by_parts(workload), limit_ms)
    return None
