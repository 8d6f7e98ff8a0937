"""What a short look at a decoder says about its full distillation: rank correlations, with intervals.

Within latency bands: the correlation is taken in each band and averaged, bands counting by their decoders. Intervals
are percentiles over resampled decoders, drawn band by band.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, rankdata

from nas.benchmark.table import Curve, CurveTable

Floats = npt.NDArray[np.float64]

_RESAMPLES = 1000
_LEVEL = 0.95
"""Share of the resamples that an interval holds."""


@dataclass(frozen=True)
class Fidelity:
    """How well one short look ranks decoders."""

    title: str
    """What is looked at."""
    cost: float
    """Training steps of the look relative to those of a full distillation."""
    decoders: int
    """Number of decoders that are ranked."""
    spearman: float
    """Spearman's rank correlation with the full score over all decoders."""
    in_bands: float
    """Spearman's rank correlation within latency bands."""
    low: float
    """Lower end of the interval of `in_bands`."""
    high: float
    """Upper end of the interval of `in_bands`."""
    kendall: float
    """Kendall's rank correlation within latency bands."""


def rank_prefixes(table: CurveTable) -> list[Fidelity]:
    """Every length at which the curves of the first seed were scored, against the full score on unseen clips."""
    first = [curve for curve in table.curves if curve.seed == 0 and not curve.failure]
    steps = first[0].points[-1][0]
    full = [_full_score(table, curve.digest) for curve in first]
    bands = [_band_of(table, curve) for curve in first]
    found = []
    for index, (length, _) in enumerate(first[0].points):
        short = [curve.points[index][1] for curve in first]
        found.append(_fidelity(f"the first {length} steps", length / steps, short, full, bands))
    return found


def rank_other_seeds(table: CurveTable) -> Fidelity | None:
    """The ceiling: a full distillation with one seed against the mean of the others; None if there is one seed only."""
    by_digest: dict[str, list[Curve]] = {}
    for curve in table.curves:
        if not curve.failure:
            by_digest.setdefault(curve.digest, []).append(curve)
    several = [curves for curves in by_digest.values() if len(curves) > 1]
    if not several:
        return None
    one = [curves[0].test_db for curves in several]
    others = [float(np.mean([curve.test_db for curve in curves[1:]])) for curves in several]
    bands = [_band_of(table, curves[0]) for curves in several]
    return _fidelity("a full distillation with another seed", 1.0, one, others, bands)


def spread_of_seeds(table: CurveTable) -> float:
    """Standard deviation in dB of full scores over seeds, pooled over decoders that have several; NaN if none has."""
    squares: list[float] = []
    for digest in {curve.digest for curve in table.curves}:
        scores = [curve.test_db for curve in table.curves if curve.digest == digest and not curve.failure]
        if len(scores) > 1:
            squares.append(float(np.var(scores, ddof=1)))
    return float(np.sqrt(np.mean(squares))) if squares else float("nan")


def _full_score(table: CurveTable, digest: str) -> float:
    """Mean over seeds."""
    return float(np.mean([each.test_db for each in table.curves if each.digest == digest and not each.failure]))


def _band_of(table: CurveTable, curve: Curve) -> int:
    return next(row.band for row in table.decoders if row.digest == curve.digest)


def _fidelity(title: str, cost: float, short: Sequence[float], full: Sequence[float], bands: Sequence[int]) -> Fidelity:
    x, y, groups = np.array(short), np.array(full), np.array(bands)
    members = [np.flatnonzero(groups == band) for band in np.unique(groups)]

    def in_bands(correlate: Callable[[Floats, Floats], float], rows: Sequence[npt.NDArray[np.intp]]) -> float:
        sizes = [len(each) for each in rows]
        return float(np.average([correlate(x[each], y[each]) for each in rows], weights=sizes))

    generator = np.random.default_rng(0)
    resampled = [
        in_bands(_spearman, [generator.choice(each, len(each)) for each in members]) for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(resampled, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return Fidelity(
        title=title,
        cost=cost,
        decoders=len(x),
        spearman=_spearman(x, y),
        in_bands=in_bands(_spearman, members),
        low=float(low),
        high=float(high),
        kendall=in_bands(_kendall, members),
    )


def _spearman(x: Floats, y: Floats) -> float:
    """The correlation of ranks, ties sharing theirs; 0 where all values of one side are equal: that ranks nothing."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _kendall(x: Floats, y: Floats) -> float:
    """As `_spearman`."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(kendalltau(x, y).statistic)
