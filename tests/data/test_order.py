"""Which samples a step trains on: all in turn where they were computed before, else a reservoir that goes on slowly."""

from collections import Counter

import pytest

from nas.data.order import USES, from_reservoir, sample_at, shuffled


def take(count: int, batch_size: int, seed: int, steps: int) -> list[int]:
    """Every index of the first `steps` steps, in order."""
    return [index for step in range(steps) for index in shuffled(count, batch_size, seed, step)]


@pytest.mark.parametrize(("count", "batch_size"), [(8, 4), (7, 3), (1, 4), (3, 8), (10, 1)])
def test_every_sample_comes_once_before_any_comes_again(count: int, batch_size: int) -> None:
    epochs = 6
    steps = -(-epochs * count // batch_size)
    taken = take(count, batch_size, seed=0, steps=steps)
    assert len(taken) == steps * batch_size
    for epoch in range(epochs):
        assert sorted(taken[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_order_differs_between_epochs_and_seeds() -> None:
    first = [tuple(take(20, 20, seed, 1)) for seed in range(10)]
    assert len(set(first)) == 10
    epochs = take(20, 5, seed=0, steps=8)
    assert epochs[:20] != epochs[20:]
    assert epochs[:20] != list(range(20))


def test_a_step_alone_says_what_it_trains_on() -> None:
    """A resumed run asks for step 37 first and must get what the uninterrupted run got there."""
    in_order = {step: shuffled(7, 3, 5, step) for step in range(40)}
    assert all(shuffled(7, 3, 5, step) == in_order[step] for step in reversed(range(40)))
    assert shuffled(7, 3, 5, 37) == in_order[37]


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="the train split of the targets is empty"):
        shuffled(0, 4, 0, 0)


def draw(count: int, window: int, batch_size: int, steps: int, seed: int = 0) -> list[list[int]]:
    return [from_reservoir(count, window, batch_size, seed, step) for step in range(steps)]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_reservoir_takes_in_one_sample_for_so_many_uses(batch_size: int) -> None:
    steps = 4000
    drawn = [place for places in draw(10**6, 100, batch_size, steps) for place in places]
    assert min(drawn) == 0
    assert max(drawn) == pytest.approx(steps * batch_size / USES, rel=0.02, abs=40)
    settled = Counter(drawn)
    uses = [settled[place] for place in range(150, max(drawn) - 150)]
    assert sum(uses) / len(uses) == pytest.approx(USES, rel=0.05)


def test_a_reservoir_never_goes_back_further_than_it_holds() -> None:
    newest = 0
    for places in draw(10**6, 50, 4, 2000):
        newest = max(newest, *places)
        assert len(set(places)) == 4
        assert min(places) > newest - 50 - 8  # what has come may not have been drawn


def test_a_reservoir_of_few_samples_draws_each_as_often_as_it_can() -> None:
    assert sorted(Counter(from_reservoir(3, 100, 8, 0, 0)).values()) == [2, 3, 3]


def test_all_samples_come_before_any_comes_again() -> None:
    for epoch in range(3):
        assert sorted(sample_at(place, 40, 5) for place in range(40 * epoch, 40 * epoch + 40)) == list(range(40))


def test_a_step_of_a_reservoir_says_by_itself_what_it_trains_on() -> None:
    in_order = draw(500, 60, 4, 300)
    assert [from_reservoir(500, 60, 4, 0, step) for step in reversed(range(300))] == in_order[::-1]
    assert draw(500, 60, 4, 300, seed=1) != in_order
