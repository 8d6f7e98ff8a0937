"""The front of a search over time."""

import pytest

from nas.benchmark.fronts import growth, hypervolume

DECODERS = [[1.0, 2.0, 30.0], [2.0, 1.0, 28.0], [3.0, 3.0, 29.0], [4.0, 5.0, 35.0]]


def test_an_area_is_counted_once() -> None:
    """Up to 1 ms nothing, then 28 dB, from 2 ms on 30 dB; a slower one that is worse adds nothing."""
    assert hypervolume(DECODERS, limit_ms=4.0, floor_db=26.0) == pytest.approx((0 + 2 + 2 * 4) / 4)
    assert hypervolume(DECODERS[::-1], 4.0, 26.0) == hypervolume(DECODERS, 4.0, 26.0)


def test_what_is_over_the_budget_or_under_the_floor_does_not_count() -> None:
    assert hypervolume(DECODERS, limit_ms=0.5, floor_db=26.0) == 0
    assert hypervolume(DECODERS, limit_ms=4.0, floor_db=31.0) == 0
    assert hypervolume([], 4.0, 26.0) == 0


def test_a_front_grows_with_time() -> None:
    assert growth(DECODERS, 4.0, 26.0, (0.5, 1.0, 2.0, 9.0)) == pytest.approx([0, 2, 2.5, 2.5])
