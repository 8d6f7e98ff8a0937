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

_CHEAP = 0.25
"""Cost up to which looks are extrapolated."""
_COSTLY = 0.5
"""Cost from which on only the full distillation is looked at."""
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


@dataclass(frozen=True)
class Look:
    """Something short that is known of decoders."""

    title: str
    """What is looked at."""
    cost: float
    """Training steps relative to those of a full distillation."""
    scores: dict[str, float]
    """What it says of each decoder, by digest; more is better."""


def list_looks(table: CurveTable) -> list[Look]:
    """Every look at the decoders that the table knows, cheapest first where they are of a kind."""
    steps = _full_steps(table)
    first = [curve for curve in _full_curves(table) if curve.seed == 0]
    looks = []
    for index, (length, _) in enumerate(first[0].points):
        if _COSTLY < length / steps < 1:
            continue
        scores = {curve.digest: curve.points[index][1] for curve in first}
        looks.append(Look(f"the first {length} steps", length / steps, scores))
    short = [curve for curve in table.curves if curve.steps != steps and not curve.failure]
    if short:
        length = short[0].steps
        scores = {curve.digest: curve.final_db for curve in short}
        looks.append(Look(f"a run of {length} steps with a schedule of its own", length / steps, scores))
    for index in range(3, len(first[0].points)):
        length = first[0].points[index][0]
        if length / steps <= _CHEAP:
            scores = {curve.digest: extrapolate(curve.points[: index + 1], steps) for curve in first}
            looks.append(Look(f"the first {length} steps, extrapolated to {steps}", length / steps, scores))
    costs = {row.digest: row.latency_ms for row in table.decoders}
    looks.append(Look("latency alone", 0.0, costs))
    looks.append(Look("parameters alone", 0.0, {row.digest: float(row.parameters) for row in table.decoders}))
    return looks


def groups(table: CurveTable) -> dict[str, frozenset[str]]:
    """Digests of all decoders, then of those that have the same shortcut: to tell these apart takes more."""
    found: dict[str, set[str]] = {"all decoders": {row.digest for row in table.decoders}}
    for row in table.decoders:
        shortcut = row.architecture.get("shortcut")
        options = "" if shortcut is None else ", ".join(f"{k} {v}" for k, v in shortcut.items() if k != "name")
        name = "without a shortcut" if shortcut is None else f"with {shortcut['name']} ({options})"
        found.setdefault(name, set()).add(row.digest)
    return {name: frozenset(digests) for name, digests in found.items()}


def rank_looks(table: CurveTable, wanted: frozenset[str]) -> list[Fidelity]:
    """How well each look ranks the decoders with these digests by their full scores on unseen clips."""
    full = {digest: _full_score(table, digest) for digest in wanted & {each.digest for each in _full_curves(table)}}
    band = {row.digest: row.band for row in table.decoders}
    found = []
    for look in list_looks(table):
        known = sorted(digest for digest in full if digest in look.scores)
        x, y = [look.scores[digest] for digest in known], [full[digest] for digest in known]
        if len(known) > 1:
            found.append(_fidelity(look.title, look.cost, x, y, [band[digest] for digest in known]))
    return found


def extrapolate(points: Sequence[tuple[int, float]], steps: int) -> float:
    """Score after `steps` if the curve goes on as a power law: score = a - b * steps^-c, fitted to its later half.

    With c = 1/2, which a few points can bear: a line over 1 / sqrt(steps), fitted by least squares.
    """
    later = [(step, score) for step, score in points[len(points) // 2 :] if step > 0]
    if len(later) < 2:
        return points[-1][1]
    x = np.array([step**-0.5 for step, _ in later])
    y = np.array([score for _, score in later])
    slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x))
    return float(y.mean() + slope * (steps**-0.5 - x.mean()))


def rank_other_seeds(table: CurveTable) -> Fidelity | None:
    """The ceiling: a full distillation with one seed against the mean of the others; None if there is one seed only."""
    by_digest: dict[str, list[Curve]] = {}
    for curve in _full_curves(table):
        by_digest.setdefault(curve.digest, []).append(curve)
    several = [curves for curves in by_digest.values() if len(curves) > 1]
    if not several:
        return None
    one = [curves[0].test_db for curves in several]
    others = [float(np.mean([curve.test_db for curve in curves[1:]])) for curves in several]
    band = {row.digest: row.band for row in table.decoders}
    bands = [band[curves[0].digest] for curves in several]
    return _fidelity("a full distillation with another seed", 1.0, one, others, bands)


def spread_of_seeds(table: CurveTable, wanted: frozenset[str], *, unseen: bool) -> float:
    """Standard deviation in dB of full scores over seeds, pooled over decoders that have several; NaN if none has.

    Args:
        table: the curves.
        wanted: digests of the decoders.
        unseen: on clips that chose nothing; False: on those that choose, which is what a search compares.
    """
    squares: list[float] = []
    for digest in wanted:
        curves = [curve for curve in _full_curves(table) if curve.digest == digest]
        scores = [curve.test_db if unseen else curve.final_db for curve in curves]
        if len(scores) > 1:
            squares.append(float(np.var(scores, ddof=1)))
    return float(np.sqrt(np.mean(squares))) if squares else float("nan")


def _full_steps(table: CurveTable) -> int:
    return int(table.distillation["steps"])


def _full_curves(table: CurveTable) -> list[Curve]:
    """The full distillations that went to their end."""
    return [curve for curve in table.curves if curve.steps == _full_steps(table) and not curve.failure]


def _full_score(table: CurveTable, digest: str) -> float:
    """Mean over seeds."""
    return float(np.mean([each.test_db for each in _full_curves(table) if each.digest == digest]))


def _fidelity(title: str, cost: float, short: Sequence[float], full: Sequence[float], bands: Sequence[int]) -> Fidelity:
    x, y, groups = np.array(short), np.array(full), np.array(bands)
    members = [np.flatnonzero(groups == band) for band in np.unique(groups)]

    sizes = [len(each) for each in members]

    def in_bands(correlate: Callable[[Floats, Floats], float]) -> float:
        return float(np.average([correlate(x[each], y[each]) for each in members], weights=sizes))

    generator = np.random.default_rng(0)
    drawn = [generator.choice(each, (_RESAMPLES, len(each))) for each in members]
    resampled = np.average([_spearman_of_rows(x[rows], y[rows]) for rows in drawn], axis=0, weights=sizes)
    low, high = np.percentile(resampled, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return Fidelity(
        title=title,
        cost=cost,
        decoders=len(x),
        spearman=_spearman(x, y),
        in_bands=in_bands(_spearman),
        low=float(low),
        high=float(high),
        kendall=in_bands(_kendall),
    )


def _spearman(x: Floats, y: Floats) -> float:
    """The correlation of ranks, ties sharing theirs; 0 where all values of one side are equal: that ranks nothing."""
    return float(_spearman_of_rows(x[None], y[None])[0])


def _spearman_of_rows(x: Floats, y: Floats) -> Floats:
    """`_spearman` for each row of two matrices."""
    first, second = (rankdata(each, axis=1) for each in (x, y))
    first, second = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (first, second))
    size = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    found: Floats = np.divide((first * second).sum(axis=1), size, out=np.zeros_like(size), where=size > 0)
    return found


def _kendall(x: Floats, y: Floats) -> float:
    """As `_spearman`."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(kendalltau(x, y).statistic)
