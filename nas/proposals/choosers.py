"""Choosers that follow a decoder, depart from it, or keep things small."""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from blocks.registry import Option
from search_spaces.choices import Chooser


class Thrifty:
    """Decides at random; of numbers it takes the smallest of several draws, which makes small decoders likely.

    Args:
        source: random numbers to decide by.
        thrift: draws of a number beyond the first; 0 makes every choice as likely as the others.
    """

    def __init__(self, source: random.Random, thrift: int = 0) -> None:
        self._random = source
        self._thrift = thrift

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`."""
        drawn = [self._random.choice(list(choices)) for _ in range(1 + self._thrift)]
        return min(drawn) if _are_numbers(choices) else drawn[0]


class Follower:
    """Follows given values where they are offered, departs from those that are named, and asks another for the rest.

    Args:
        values: the values to follow, by name.
        other: decides what there is no value for.
        departures: names whose value has to be another one.
        source: random numbers to depart by.
    """

    def __init__(
        self,
        values: Mapping[str, Option],
        other: Chooser,
        departures: Collection[str] = (),
        source: random.Random | None = None,
    ) -> None:
        self._values = values
        self._other = other
        self._departures = departures
        self._random = source or random.Random(0)
        self.used: dict[str, Option] = {}
        """What was decided, in that order."""
        self.offered: dict[str, list[Option]] = {}
        """What it was decided between."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`."""
        value = self._decide(name, choices)
        self.used[name], self.offered[name] = value, list(choices)
        return value

    def _decide(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self._values or self._values[name] not in choices:
            return self._other.suggest_categorical(name, choices)
        value = self._values[name]
        others = [choice for choice in choices if choice != value]
        if name not in self._departures or not others:
            return value
        # Of numbers mostly a neighbour: quality and latency change little by little.
        if _are_numbers(choices) and self._random.random() < 0.7:
            return min(self._random.sample(others, len(others)), key=lambda other: _steps(choices, other, value))
        return self._random.choice(others)


def _are_numbers(choices: Sequence[Any]) -> bool:
    return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices)


def _steps(choices: Sequence[Any], one: Any, other: Any) -> int:
    ordered = sorted(choices)
    return abs(ordered.index(one) - ordered.index(other))
