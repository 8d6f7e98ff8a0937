"""Choosers, which decide between options, and the names under which options of parts are decided."""

import random
from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

from blocks import BlockConfig, get_block
from blocks.registry import Option


class Chooser(Protocol):
    """Decides between options: an `optuna.Trial`, or anything else with this method."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`, which are options (`blocks.registry.Option`)."""


class RandomChooser:
    """A chooser that decides at random.

    Args:
        source: a seed, for which it always decides alike, or the random numbers to decide by.
    """

    def __init__(self, source: int | random.Random) -> None:
        self._random = random.Random(source) if isinstance(source, int) else source

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`, each as likely as the others."""
        return self._random.choice(list(choices))


class Recorder:
    """A chooser that follows given values and refuses those that are not offered."""

    def __init__(self, space: str, values: dict[str, Option]) -> None:
        self._space = space
        self._values = values
        self.used: dict[str, Option] = {}
        """The given values that were asked for, in that order."""

    def suggest_categorical(self, name: str, choices: Sequence[Option], /) -> Option:
        """The given value; ValueError if it is not offered."""
        value = self._values.get(name)
        if value is None or value not in choices:
            raise ValueError(f"{name} = {value!r} is not in the space '{self._space}': it offers {list(choices)}")
        self.used[name] = value
        return value


def choose(chooser: Chooser, name: str, choices: Sequence[Option]) -> Any:
    """One of `choices`. The chooser is not asked where there is nothing to choose."""
    return choices[0] if len(choices) == 1 else chooser.suggest_categorical(name, list(choices))


def describe_part(name: str, config: BlockConfig, prefix: str | None = None) -> dict[str, Option]:
    """A part's name and options, by the names that `suggest_part` gives them."""
    options = {key: value for key, value in config.to_dict().items() if key != "name"}
    return {name: config.name} | {f"{prefix or name}.{config.name}.{key}": value for key, value in options.items()}


def suggest_part(chooser: Chooser, name: str, parts: Sequence[str], prefix: str | None = None) -> BlockConfig:
    """One of `parts` with its options; `prefix` stands before the options' names where it is not `name`."""
    part = str(choose(chooser, name, parts))
    config = get_block(part).Config
    options = {
        option: choose(chooser, f"{prefix or name}.{part}.{option}", choices)
        for option, choices in config.choices().items()
    }
    return config(**options)


def choose_int(chooser: Chooser, name: str, choices: Sequence[int]) -> int:
    """One of `choices`, a number."""
    return int(choose(chooser, name, choices))


def count_parts(parts: Sequence[str]) -> int:
    """Number of parts with their options: every combination of every part."""
    return sum(prod(len(choices) for choices in get_block(part).Config.choices().values()) for part in parts)
