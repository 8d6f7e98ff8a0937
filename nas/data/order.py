"""Which samples a step trains on, as pure functions of the step, so that a resumed run agrees."""

from functools import lru_cache

import torch

START = 32
"""Samples that a reservoir begins with."""
USES = 10
"""How often a sample is trained on while it is in a reservoir, on average, once that has filled up."""


def shuffled(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Indices below `count` for step `step`: every sample once, shuffled, then all again in a new order."""
    _refuse_empty(count)
    first = step * batch_size
    return [_order(count, seed, place // count)[place % count] for place in range(first, first + batch_size)]


def from_reservoir(count: int, window: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Places for step `step`, drawn from those of a reservoir that goes on slowly: one new for every `USES` drawn.

    It holds the last `window` of all places that have come, which are counted on without end (`sample_at`). So what is
    drawn is new at a steady rate, and what is kept of it is bounded.

    Args:
        count: samples that there are.
        window: samples that the reservoir holds, if there are so many.
        batch_size: places that are drawn; no two are the same, if the reservoir holds so many.
        seed: of the draw.
        step: number of the step.
    """
    _refuse_empty(count)
    come = max(START, batch_size) + step * batch_size // USES
    held = min(count, max(window, batch_size), come)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    drawn: list[int] = torch.randperm(held, generator=generator).tolist()
    return [come - 1 - drawn[number % held] for number in range(batch_size)]


def sample_at(place: int, count: int, seed: int) -> int:
    """Index below `count` of the sample that comes at a place: every sample once, shuffled, then all again."""
    return _order(count, seed, place // count)[place % count]


def _refuse_empty(count: int) -> None:
    if count < 1:
        raise ValueError("there is no sample to train on: the train split of the targets is empty")


@lru_cache(maxsize=4)  # of a large set, drawing it takes longer than many a step
def _order(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
