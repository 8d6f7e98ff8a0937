"""Statistics of repeated runs: how long one takes, and whether the machine was steady while they were timed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

STEADY = 0.10
"""Largest spread of runs that count as steady."""

MAX_ATTEMPTS = 3
"""Largest number of sets of runs that are timed until one is steady."""

TRIMMED = 0.1
"""Share of the runs that the trimmed mean leaves out at either end."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of a set of timed runs, warm-up not among them."""

    trimmed_mean_ms: float
    """Mean time of a run in milliseconds, without the fastest and the slowest tenth."""
    median_ms: float
    """Median time of a run in milliseconds."""
    p90_ms: float
    """90th percentile of the times in milliseconds."""
    spread: float
    """90th less 10th percentile of the times, relative to their median."""
    runs: int
    """Number of runs."""
    drift: float
    """Median of the last third relative to that of the first, less 1: well above 0, the device got hot or busy."""

    @property
    def steady(self) -> bool:
        """Whether the spread is at most `STEADY`."""
        return self.spread <= STEADY

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return asdict(self)


def summarise(samples_ms: Sequence[float]) -> Statistics:
    """Statistics of the milliseconds of single runs; ValueError if there are none or one is not positive."""
    samples = np.asarray(samples_ms, dtype=np.float64)
    if not samples.size or not (samples > 0).all():
        raise ValueError(f"timings must be at least one and positive, got {list(samples_ms)}")
    cut = int(TRIMMED * samples.size)
    third = max(1, samples.size // 3)
    median = float(np.median(samples))
    low, high = np.percentile(samples, [10, 90])
    return Statistics(
        trimmed_mean_ms=float(np.sort(samples)[cut : samples.size - cut].mean()),
        median_ms=median,
        p90_ms=float(high),
        spread=float(high - low) / median,
        runs=int(samples.size),
        drift=float(np.median(samples[-third:]) / np.median(samples[:third]) - 1),
    )


def time_until_steady(time_runs: Callable[[], Sequence[float]]) -> tuple[Statistics, int]:
    """Time sets of runs until one is steady, at most three; the steadiest of them, and how many were timed.

    Args:
        time_runs: times one set and returns the milliseconds of each run.
    """
    sets: list[Statistics] = []
    while len(sets) < MAX_ATTEMPTS:
        sets.append(summarise(time_runs()))
        if sets[-1].steady:
            break
    return min(sets, key=lambda found: found.spread), len(sets)
