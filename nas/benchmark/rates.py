"""Whether the learning rate is fair: what decoders lose by the default rate against the best of several."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from nas.benchmark.curves import Job
from nas.benchmark.design import distill_settings
from nas.benchmark.side_by_side import run_missing
from nas.benchmark.table import CurveTable, DecoderRow, read_curve
from nas.data.settings import TargetSettings
from nas.workers.processes import ProcessPool
from search_spaces import DecoderConfig

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Learning rates that are compared, relative to the default."""
_OTHERS = 10
"""Decoders of random walks."""
_NICENESS = 15
"""Priority of the distillations: whoever uses the machine comes first."""


@dataclass(frozen=True)
class RateRow:
    """One decoder at all rates."""

    title: str
    """Name of the published design, or space and number of the random walk."""
    shortcut: bool
    """Whether it has a linear shortcut."""
    scores: tuple[float | None, ...]
    """Score in dB after the last step, by `FACTORS`; None where it diverged."""

    @property
    def loss(self) -> float:
        """How far the default is below the best of all rates, in dB; infinite where it diverged."""
        default = self.scores[FACTORS.index(1.0)]
        return float("inf") if default is None else max(score for score in self.scores if score is not None) - default

    @property
    def best(self) -> float:
        """The factor with the best score; of equals the one that comes first."""
        return max(zip(FACTORS, self.scores, strict=True), key=lambda pair: -1.0 if pair[1] is None else pair[1])[0]


def choose(table: CurveTable) -> list[DecoderRow]:
    """Every third published design of a table, and ten of its random walks, evenly spread over it.

    Their order has nothing to do with what they are, so that the first ones stand for all.
    """
    published = [row for row in table.decoders if "#" not in row.title]
    others = [row for row in table.decoders if "#" in row.title]
    chosen = published[::3] + others[:: max(1, len(others) // _OTHERS)][:_OTHERS]
    return sorted(chosen, key=lambda row: row.digest)


def list_jobs(
    rows: Sequence[DecoderRow], steps: int, teacher: str, crops: TargetSettings, folder: Path
) -> list[list[Job]]:
    """For each decoder a distillation at each rate."""
    settings = distill_settings(steps)

    def job(row: DecoderRow, factor: float) -> Job:
        each = replace(settings, learning_rate=settings.learning_rate * factor)
        file = folder / f"{row.digest}-{steps}-{factor:g}.json"
        return Job(DecoderConfig.from_dict(row.architecture), each, teacher, crops, crops.num_frames, file)

    return [[job(row, factor) for factor in FACTORS] for row in rows]


def distil_missing(jobs: Sequence[Sequence[Job]], workers: int, progress: Callable[[int, int], None]) -> None:
    """Distil what has not been distilled.

    Args:
        jobs: of all decoders, from `list_jobs`.
        workers: processes side by side.
        progress: called with the number of distillations that are known and of all.
    """
    with closing(ProcessPool(workers, _NICENESS)) as pool:
        run_missing([job for each in jobs for job in each], pool, progress)


def compare(rows: Sequence[DecoderRow], jobs: Sequence[Sequence[Job]]) -> list[RateRow]:
    """The decoders that were distilled at all rates; `jobs` are those of `rows`, from `list_jobs`."""
    found = []
    for row, each in zip(rows, jobs, strict=True):
        if all(job.file.exists() for job in each):
            curves = [read_curve(job.file) for job in each]
            scores = tuple(None if curve.failure else curve.final_db for curve in curves)
            found.append(RateRow(row.title, row.shortcut, scores))
    return found


def summary(rows: Sequence[RateRow], spread_db: float) -> str:
    """The losses in one line.

    Args:
        rows: what was found.
        spread_db: standard deviation over seeds.
    """
    losses = [row.loss for row in rows]
    fair = sum(loss <= spread_db for loss in losses)
    return (
        f"the default is within {spread_db:g} dB, the spread of seeds, of the best rate for {fair} of {len(rows)} "
        f"decoders; mean {fmean(losses):.2f} dB behind it, at most {max(losses):.2f} dB"
    )
