"""What searches are worth, from made-up scores."""

from typing import Any

import pytest

from nas.benchmark.power import Result, difference, rank_test, results


def row(arm: str, seed: int, score: float, test: float) -> dict[str, Any]:
    return {"arm": arm, "seed": seed, "full": [{"score_db": score, "test_db": test}]}


def test_published_designs_are_chosen_as_a_search_chooses() -> None:
    rows = [row("published", 0, 30.0, 29.0), row("published", 0, 29.0, 31.0), row("default", 0, 30.0, 30.5)]
    assert results([*rows, row("default", 1, 30.0, 31.5)]) == [
        Result("published", (29.0,)),
        Result("default", (30.5, 31.5)),
    ]


def test_a_difference_has_the_interval_of_its_searches() -> None:
    default, published = Result("default", (30.0, 31.0, 32.0)), Result("published", (30.0,))
    gap, low, high = difference(default, published)
    assert gap == pytest.approx(1.0)
    # Student's t for 2 degrees of freedom: 4.303 standard errors of 1 / sqrt(3).
    assert (low, high) == pytest.approx((1 - 4.3027 * 3**-0.5, 1 + 4.3027 * 3**-0.5), rel=1e-4)
    wider = difference(default, Result("random", (29.0, 30.0, 31.0)))
    assert wider[0] == pytest.approx(1.0) and wider[1] == pytest.approx(1.0 - 2.7764 * (2 / 3) ** 0.5, rel=1e-4)
    assert difference(published, published) == (0.0, 0.0, 0.0)


def test_pairs_are_won_whatever_the_margin() -> None:
    """Five against five: all 25 pairs have a chance of 2 in 252."""
    better, worse = (Result("a", (30.6, 30.7, 30.5, 30.9, 30.8)), Result("b", (30.2, 30.1, 27.8, 30.0, 29.7)))
    share, chance = rank_test(better, worse)
    assert share == 1.0 and chance == pytest.approx(2 / 252)
    assert rank_test(worse, better) == pytest.approx((0.0, 2 / 252))
    assert rank_test(better, Result("c", (30.6, 30.7, 30.5, 30.9, 30.8)))[0] == 0.5
