"""Constraints: what is within them, and by how much a value is not."""

import pytest

from nas.study.constraints import Constraint, all_met, in_words, most_violated

LATENCY = Constraint("latency", 30.0, "ms per frame")
SIZE = Constraint("size", 8.0, "MB")


def test_the_limit_itself_is_allowed() -> None:
    assert LATENCY.is_met(30.0) and not LATENCY.is_met(30.0001)
    assert LATENCY.violation(30.0) == 0.0 and LATENCY.violation(45.0) == 0.5 and LATENCY.violation(15.0) == -0.5


def test_every_constraint_has_to_be_met() -> None:
    values = {"latency": 20.0, "size": 7.0, "something else": 1e9}
    assert all_met([LATENCY, SIZE], values) and all_met([], values)
    assert not all_met([LATENCY, SIZE], values | {"size": 8.5})
    with pytest.raises(KeyError, match="size"):
        all_met([LATENCY, SIZE], {"latency": 20.0})


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_means_nothing_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="the limit of latency must be positive and finite"):
        Constraint("latency", limit, "ms per frame")


def test_the_most_violated_is_so_relative_to_its_limit() -> None:
    assert most_violated([LATENCY, SIZE], {"latency": 33.0, "size": 12.0}) is SIZE
    assert most_violated([LATENCY, SIZE], {"latency": 15.0, "size": 2.0}) is LATENCY
    assert most_violated([LATENCY, SIZE], {"latency": 60.0, "size": 16.0}) is LATENCY, "the first of equals"


def test_it_is_written_with_its_unit() -> None:
    assert in_words([LATENCY]) == "30 ms per frame"
    assert in_words([LATENCY, SIZE, SIZE]) == "30 ms per frame, 8 MB and 8 MB"
    assert SIZE.describe_value(7.5) == "7.5 MB" and SIZE.describe_value(8.000001) == "8.000001 MB"
    assert LATENCY.describe() == "30 ms per frame"
    assert Constraint("latency", 1000 / 33, "ms per frame").describe() == "30.3 ms per frame"
