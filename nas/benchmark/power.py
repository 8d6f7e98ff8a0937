"""What searches are worth: the decoders that they found against published ones and against chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, t

_LEVEL = 0.95
"""How sure the intervals are."""


@dataclass(frozen=True)
class Result:
    """What one arm found."""

    arm: str
    """What proposed."""
    scores: tuple[float, ...]
    """PSNR in dB on unseen clips of what each search found best, mean over seeds of its full distillation."""

    @property
    def mean(self) -> float:
        """Mean over searches."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """Standard deviation over searches; 0 for one."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else 0.0


def results(rows: Sequence[Mapping[str, Any]]) -> list[Result]:
    """The arms in the order in which they come; of the published designs the best by what chooses, as a search does."""
    by_arm: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {}).setdefault(row["seed"], []).append(row)
    return [Result(arm, tuple(_judged(found) for found in seeds.values())) for arm, seeds in by_arm.items()]


def difference(one: Result, other: Result) -> tuple[float, float, float]:
    """Mean of `one` minus mean of `other` in dB, with its interval.

    By Welch's t interval where both have several searches, by Student's where one side is a single number.
    """
    gap = one.mean - other.mean
    several = [each.scores for each in (one, other) if len(each.scores) > 1]
    parts = [(float(np.var(scores, ddof=1)) / len(scores), len(scores)) for scores in several]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return gap, gap, gap
    freedom = variance**2 / sum(part**2 / (count - 1) for part, count in parts)
    half = float(t.ppf((1 + _LEVEL) / 2, freedom)) * variance**0.5
    return gap, gap - half, gap + half


def rank_test(one: Result, other: Result) -> tuple[float, float]:
    """Share of pairs of searches in which `one` found the better decoder, and how likely one as far from a half is by
    chance: the exact two-sided p of Mann and Whitney, which a single bad search does not blur.
    """
    found = mannwhitneyu(one.scores, other.scores, alternative="two-sided", method="exact")
    return float(found.statistic) / (len(one.scores) * len(other.scores)), float(found.pvalue)


def _judged(found: Sequence[Mapping[str, Any]]) -> float:
    """Score on unseen clips of the decoder that is best on the clips that choose."""

    def mean(row: Mapping[str, Any], name: str) -> float:
        return float(np.mean([each[name] for each in row["full"]]))

    return mean(max(found, key=lambda row: mean(row, "score_db")), "test_db")
