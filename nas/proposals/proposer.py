"""What every proposer is given and returns, and the draws until a decoder is new and within the budget."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial

from blocks import get_block
from nas.proposals.budget import Budget
from nas.proposals.choosers import Follower, Thrifty
from nas.proposals.history import History
from search_spaces import DecoderConfig, LatentSpec, SearchSpace
from search_spaces.choices import describe_part

MOST_DRAWS = 400
"""Draws after which a decoder is proposed that is over the budget or known: the study then says so."""

_PATIENCE = 20
"""Draws after which, and again after as many more, smaller numbers become likelier."""


@dataclass(frozen=True)
class Proposal:
    """A decoder to look at, and how it came to be proposed."""

    config: DecoderConfig
    """The architecture, a point of the space."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the trial is told as user attributes, JSON primitives: `proposer`, `parent` (number of a trial), ..."""


@dataclass(frozen=True)
class Setting:
    """What all proposers of a study share."""

    space: SearchSpace
    """The space that is searched."""
    latents: LatentSpec
    """The latents that are decoded."""
    budget: Budget | None
    """What is known of the budget before a trial; None if nothing is."""

    def is_wanted(self, config: DecoderConfig, history: History) -> bool:
        """Whether a decoder was never proposed and is within the budget."""
        if config.digest() in history.proposed:
            return False
        return self.budget is None or self.budget.fits(config)

    def draw(self, make: Callable[[int], DecoderConfig], history: History, most: int = MOST_DRAWS) -> DecoderConfig:
        """The first of `make(0)`, `make(1)`, ... that is wanted; the last if none of the first `most` is."""
        config = make(0)
        for attempt in range(1, most):
            if self.is_wanted(config, history):
                break
            config = make(attempt)
        return config


class Proposer(Protocol):
    """Decides which decoder a study looks at next."""

    @property
    def name(self) -> str:
        """Name by which commands know it."""

    def propose(self, study: optuna.Study, trial: FrozenTrial, history: History, source: random.Random) -> Proposal:
        """A decoder.

        Args:
            study: the study, which other processes may be working on.
            trial: the trial that it is for.
            history: what the study knows, up to date.
            source: random numbers of this trial alone.
        """


def random_config(
    setting: Setting, history: History, source: random.Random, patience: int = _PATIENCE
) -> DecoderConfig:
    """A random walk through the space that is new and within the budget.

    Args:
        setting: the space and the budget.
        history: what was proposed before.
        source: random numbers.
        patience: draws after which, and again after as many more, smaller numbers become likelier.
    """
    return setting.draw(
        lambda attempt: setting.space.suggest(Thrifty(source, attempt // patience), setting.latents), history
    )


def first_config(setting: Setting, history: History, source: random.Random) -> DecoderConfig:
    """A random walk as a proposer begins with: with the space's linear shortcut, for as long as one may fit so.

    Short distillations tell decoders apart that begin where linear decoding ends. Those without are up to 12 dB behind
    after a few hundred steps (docs/search.md), and would be most of what the first decoders teach.
    """
    if not setting.space.shortcuts:
        return random_config(setting, history, source)
    shortcut = get_block(setting.space.shortcuts[0]).Config()
    helped = {"has_shortcut": True} | describe_part("shortcut", shortcut)

    def walk(attempt: int) -> DecoderConfig:
        followed = helped if attempt < MOST_DRAWS // 2 else {}
        return setting.space.suggest(Follower(followed, Thrifty(source, attempt // _PATIENCE)), setting.latents)

    return setting.draw(walk, history)
