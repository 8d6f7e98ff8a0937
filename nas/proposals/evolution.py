"""Regularised evolution (arXiv 1802.01548): children of good and recent decoders, one or two choices changed."""

import random

import optuna
from optuna.trial import FrozenTrial

from blocks import list_blocks
from blocks.registry import Option
from nas.proposals.choosers import Follower, Thrifty
from nas.proposals.history import History, Known
from nas.proposals.proposer import Proposal, Setting, first_config
from search_spaces import DecoderConfig

_OPTION_WEIGHT = 1 / 3
"""How likely an option of a part is changed, relative to a part or a size: there are more options, and they do less."""


class Evolution:
    """A child of the best of a random few, taken from the newest decoders and the best ones.

    Age makes a lucky score die out; the best few stay, as a search of some dozens of trials cannot afford to lose them.

    Args:
        setting: the space and the budget.
        first: decoders with a score up to which proposals are random.
        population: newest decoders that may have children.
        elite: best decoders that may, however old.
        tournament: decoders of these that a parent is the best of.
    """

    name = "evolution"

    def __init__(
        self, setting: Setting, first: int = 8, population: int = 24, elite: int = 4, tournament: int = 10
    ) -> None:
        self._setting = setting
        self._first = first
        self._population = population
        self._elite = elite
        self._tournament = tournament

    def propose(self, study: optuna.Study, trial: FrozenTrial, history: History, source: random.Random) -> Proposal:
        """A child, with its parent's trial as the note `parent`; a random walk while too few decoders have a score."""
        if len(history.known) < self._first:
            return Proposal(first_config(self._setting, history, source), {"proposer": "random"})
        parent = self.choose_parent(history, source)
        config = self._setting.draw(lambda _: mutate(self._setting, parent, source)[0], history)
        return Proposal(config, {"proposer": self.name, "parent": parent.number})

    def choose_parent(self, history: History, source: random.Random) -> Known:
        """The best of a random few."""
        living = {known.number: known for known in history.known[-self._population :] + history.best(self._elite)}
        few = source.sample(list(living.values()), min(self._tournament, len(living)))
        return max(few, key=lambda known: known.score)


def mutate(setting: Setting, parent: Known, source: random.Random) -> tuple[DecoderConfig, dict[str, Option]]:
    """A decoder that departs from its parent in one choice, every third time in two, and in what these entail.

    What the parent has no value for is decided at random.

    Returns:
        The decoder and its choices.
    """
    names = sorted(parent.params)
    weights = [_OPTION_WEIGHT if _is_option(name) else 1.0 for name in names]
    departures = source.choices(names, weights, k=2 if source.random() < 1 / 3 else 1)
    follower = Follower(parent.params, Thrifty(source), departures=departures, source=source)
    return setting.space.suggest(follower, setting.latents), follower.used


def _is_option(name: str) -> bool:
    """Whether a choice is an option of a part, such as stage1.dense_conv3d.kernel_size, not a part or a size."""
    parts = name.split(".")
    return len(parts) > 2 and parts[-2] in list_blocks()
