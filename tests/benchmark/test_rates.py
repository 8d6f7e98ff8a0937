"""Learning rates side by side: the same decoder at each, and how far the default is behind."""

from math import inf
from pathlib import Path

import pytest

from nas.benchmark import curves
from nas.benchmark.curves import run_job
from nas.benchmark.rates import FACTORS, RateRow, choose, compare, list_jobs, summary
from nas.benchmark.table import CurveTable, DecoderRow
from nas.data.settings import TargetSettings
from tests.support.small_targets import CONFIG, make_targets

ROW = DecoderRow("hybrid #3", CONFIG.digest(), CONFIG.summary(), 0, 1.0, 5, 0.1, False, CONFIG.to_dict())
CROPS = TargetSettings(32, 5, 1, 1, 1, ())


def test_every_rate_has_a_run_that_differs_in_nothing_else(tmp_path: Path) -> None:
    (jobs,) = list_jobs([ROW], 4, "formula", CROPS, tmp_path)
    assert len({job.file for job in jobs}) == len(jobs) == len(FACTORS)
    rates = [job.settings.learning_rate for job in jobs]
    default = rates[FACTORS.index(1.0)]
    assert rates == [default * factor for factor in FACTORS]
    assert len({(job.architecture, job.settings.seed, job.settings.steps, job.settings.betas) for job in jobs}) == 1


def test_what_was_distilled_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_targets", lambda job: make_targets())
    jobs = list_jobs([ROW], 4, "formula", CROPS, tmp_path)
    for job in jobs[0]:
        run_job(job)
    assert compare([ROW, ROW], [*jobs, list_jobs([ROW], 5, "formula", CROPS, tmp_path)[0]]) == compare([ROW], jobs)
    (row,) = compare([ROW], jobs)
    assert row.title == "hybrid #3" and len(set(row.scores)) == len(FACTORS)
    assert row.loss >= 0 and (row.loss == 0) == (row.best == 1.0)


def test_the_default_is_as_far_behind_as_the_best_is_ahead() -> None:
    row = RateRow("a", False, (20.0, 21.5, 21.0, 20.5, None))
    assert row.loss == 0.5 and row.best == 0.5
    assert RateRow("b", False, (20.0, None, None, None, None)).loss == inf
    fair = RateRow("c", True, (20.0, 20.0, 21.0, 20.0, 20.0))
    assert (fair.loss, fair.best) == (0.0, 1.0)
    found = summary([row, fair], 0.1)
    assert "for 1 of 2 decoders; mean 0.25 dB behind it, at most 0.50 dB" in found


def test_published_designs_and_ten_others_are_compared() -> None:
    table = CurveTable.load(Path(__file__).parents[2] / "benchmark" / "curves.json")
    chosen = choose(table)
    published = [row.title for row in chosen if "#" not in row.title]
    assert len(published) >= 3 and len(chosen) == len(published) + 10
    assert len({row.digest for row in chosen}) == len(chosen)
    assert {row.band for row in chosen} == {0, 1, 2} and {row.shortcut for row in chosen} == {True, False}
