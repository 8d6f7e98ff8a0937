"""How far a mean over clips can be trusted: intervals by bootstrap, where whole clips are drawn again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Share of such intervals that are to hold the true mean."""
RESAMPLES = 2000
"""Draws of as many clips as there are."""
SEED = 0
"""Seed of the draws. They are the same for every number of the same clips, so that differences are paired."""


@dataclass(frozen=True)
class Interval:
    """A mean over clips, every clip counting the same."""

    mean: float
    """The mean."""
    low: float | None
    """Lower end of its interval; None of a single clip, which says nothing of others."""
    high: float | None
    """Upper end, likewise."""
    clips: int
    """Number of clips."""

    @property
    def is_clear(self) -> bool:
        """Whether 0 is outside of the interval: for differences, whether one of the two is better."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def interval(values: Sequence[float]) -> Interval:
    """The mean of one number per clip, with its percentile bootstrap interval.

    With few clips the interval is too narrow; under ten it is a hint at most.

    Args:
        values: of each clip, at least one.
    """
    numbers, count = np.asarray(values, dtype=float), len(values)
    mean = float(numbers.mean())
    if count < 2:
        return Interval(mean, None, None, count)
    draws = np.random.default_rng(SEED).integers(count, size=(RESAMPLES, count))
    low, high = np.quantile(numbers[draws].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), count)


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The mean of `values` minus `others`, clip by clip: what two models differ in on the same clips.

    Args:
        values: of each clip, at least one.
        others: of the same clips in the same order.
    """
    return interval([value - other for value, other in zip(values, others, strict=True)])
