"""Rank correlations of a made-up table, whose answers are known."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.benchmark.rank import Fidelity, extrapolate, groups, list_looks, rank_looks, rank_other_seeds, spread_of_seeds
from nas.benchmark.table import Curve, CurveTable, DecoderRow
from nas.terminal.errors import UserError

BANDS = ((1.0, 2.0), (2.0, 4.0))


def rank(table: CurveTable) -> list[Fidelity]:
    """All decoders."""
    return rank_looks(table, groups(table)["all decoders"])


def row(number: int, band: int) -> DecoderRow:
    return DecoderRow(f"decoder {number}", str(number), "dw3d", band, 1.5 + band, 1000, 0.5, False, {})


def make_table(short: list[float], full: list[float], seeds: int = 1) -> CurveTable:
    """The first half of the decoders in the first band; other seeds are 1 dB better each."""
    decoders = tuple(row(number, 2 * number // len(short)) for number in range(len(short)))
    curves = []
    for seed, (number, each) in itertools.product(range(seeds), enumerate(decoders)):
        score = full[number] + seed
        curves.append(Curve(each.digest, seed, 50, ((0, 10.0), (5, short[number]), (50, score)), score, 1.0))
    return CurveTable(
        "command", "machine", "2026-01-01", {}, "teacher", "key", {"steps": 50}, BANDS, decoders, tuple(curves)
    )


def test_what_ranks_alike_in_every_band_has_a_correlation_of_one() -> None:
    full = [20.0, 21.0, 22.0, 23.0, 30.0, 31.0, 32.0, 33.0]
    table = make_table(short=[1.0, 2.0, 3.0, 4.0, 1.5, 2.5, 3.5, 4.5], full=full)
    before, short, last, *_ = rank(table)
    assert (before.cost, short.cost, last.cost) == (0.0, 0.1, 1.0)
    assert before.in_bands == 0.0, "equal scores rank nothing"
    assert short.in_bands == short.kendall == last.in_bands == pytest.approx(1.0)
    assert short.spearman < 1.0 and last.spearman == pytest.approx(1.0)


def test_bands_told_apart_are_no_achievement() -> None:
    """A look that knows the band alone ranks well over all decoders, and not at all within bands."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=200)
    full = [20 + 10 * (number >= 100) + float(generator.normal()) for number in range(200)]
    _, short, *_ = rank(make_table([10.0 * (n >= 100) + float(noise[n]) for n in range(200)], full))
    assert short.spearman > 0.7
    assert abs(short.in_bands) < 0.2 and short.low < 0 < short.high
    assert short.low < short.in_bands < short.high


def test_an_interval_narrows_with_the_decoders() -> None:
    def width(count: int) -> float:
        generator = np.random.default_rng(1)
        full = generator.normal(size=count)
        short = full + generator.normal(size=count)
        found = rank(make_table(list(map(float, short)), list(map(float, full))))[1]
        return found.high - found.low

    assert width(400) < 0.5 * width(40)


def test_other_seeds_give_the_ceiling_and_the_spread() -> None:
    table = make_table([1.0, 2.0, 3.0, 4.0], [20.0, 21.0, 22.0, 23.0], seeds=3)
    ceiling = rank_other_seeds(table)
    assert ceiling is not None and ceiling.decoders == 4 and ceiling.in_bands == pytest.approx(1.0)
    everything = groups(table)["all decoders"]
    assert spread_of_seeds(table, everything, unseen=False) == pytest.approx(1.0), "0, 1 and 2 dB"
    apart = replace(table, curves=tuple(replace(each, test_db=3.0 * each.seed) for each in table.curves))
    assert spread_of_seeds(apart, everything, unseen=True) == pytest.approx(3.0)
    assert spread_of_seeds(apart, everything, unseen=False) == pytest.approx(1.0)
    assert rank_other_seeds(make_table([1.0, 2.0], [1.0, 2.0])) is None


def test_what_could_not_be_trained_is_left_out() -> None:
    table = make_table([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [20.0, 21.0, 22.0, 23.0, 24.0, 25.0])
    broken = replace(table.curves[1], points=((0, 10.0),), failure="the loss is nan at step 3")
    found = rank(replace(table, curves=(table.curves[0], broken, *table.curves[2:])))
    assert {each.decoders for each in found} == {5}


def test_a_short_run_of_its_own_is_a_look() -> None:
    table = make_table([1.0, 2.0, 3.0, 4.0], [20.0, 21.0, 22.0, 23.0])
    own = tuple(Curve(row.digest, 0, 5, ((0, 10.0), (5, -float(row.digest))), 1.0, 1.0) for row in table.decoders)
    found = {each.title: each for each in rank(replace(table, curves=(*table.curves, *own)))}
    look = found["a run of 5 steps with a schedule of its own"]
    assert look.cost == 0.1 and look.in_bands == pytest.approx(-1.0)
    assert found["the first 5 steps"].in_bands == pytest.approx(1.0)


def test_decoders_with_the_same_shortcut_are_ranked_apart() -> None:
    table = make_table([1.0, 2.0, 3.0, 4.0], [20.0, 21.0, 22.0, 23.0])
    shortcut = {"name": "linear_shortcut", "kernel_size": 3}
    rows = tuple(
        replace(row, architecture={"shortcut": shortcut if row.digest in "12" else None}) for row in table.decoders
    )
    mixed = replace(table, decoders=rows)
    found = groups(mixed)
    assert list(map(len, found.values())) == [4, 2, 2]
    assert found["with linear_shortcut (kernel_size 3)"] == {"1", "2"}
    assert {each.decoders for each in rank_looks(mixed, found["without a shortcut"])} == {2}
    assert len(list_looks(table)[0].scores) == 4


def test_a_power_law_is_extrapolated_exactly() -> None:
    points = [(step, 30.0 - 8.0 * step**-0.5) for step in (10, 20, 30, 40)]
    assert extrapolate(points, 400) == pytest.approx(30.0 - 8.0 * 400**-0.5)
    assert extrapolate([(0, 10.0), (5, 12.0)], 400) == 12.0, "one point has no slope"


def test_a_table_survives_json(tmp_path: Path) -> None:
    table = make_table([1.0, 2.0], [20.0, 21.0], seeds=2)
    table.save(tmp_path / "curves.json")
    assert CurveTable.load(tmp_path / "curves.json") == table


@pytest.mark.parametrize("content", [None, "{}", "[]", '{"format": 99}', "not json"])
def test_what_is_not_a_table_is_one_clear_line(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"curves\.json (does not exist|is not a table of this version|is not valid)"):
        CurveTable.load(path)
