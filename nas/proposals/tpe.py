"""Optuna's tree-structured Parzen estimator (TPE), asked again until its decoder is within the budget."""

import random
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from nas.proposals.choosers import Follower
from nas.proposals.history import History
from nas.proposals.proposer import Proposal, Setting, first_config
from search_spaces import DecoderConfig

_MOST_ASKED = 12
"""Draws from the estimator for one proposal."""


class Tpe:
    """TPE over groups of choices that occur together, running trials counted as bad (several processes differ).

    Args:
        setting: the space and the budget.
        first: decoders with a score up to which proposals are random, within the budget.
        candidates: draws that the estimator takes its best from.
    """

    name = "tpe"

    def __init__(self, setting: Setting, first: int = 10, candidates: int = 48) -> None:
        self._setting = setting
        self._first = first
        self._candidates = candidates

    def propose(self, study: optuna.Study, trial: FrozenTrial, history: History, source: random.Random) -> Proposal:
        """The estimator's decoder, the last one where none of its draws is new and within the budget."""
        if len(history.known) < self._first:
            return Proposal(first_config(self._setting, history, source), {"proposer": "random"})

        def ask(_: int) -> DecoderConfig:
            return self._ask(study, trial, source.randrange(2**31))

        return Proposal(self._setting.draw(ask, history, _MOST_ASKED), {"proposer": self.name})

    def _ask(self, study: optuna.Study, trial: FrozenTrial, seed: int) -> DecoderConfig:
        with warnings.catch_warnings():
            # The grouped search space; there is nothing that a user could do about it.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=self._first,
                n_ei_candidates=self._candidates,
                seed=seed,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        together = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        follower = Follower(together, _Alone(sampler, study, trial))
        return self._setting.space.suggest(follower, self._setting.latents)


class _Alone:
    """Choices that the estimator has not seen together with others, each on its own."""

    def __init__(self, sampler: optuna.samplers.TPESampler, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = sampler
        self._study = study
        self._trial = trial

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`."""
        return self._sampler.sample_independent(self._study, self._trial, name, CategoricalDistribution(choices))
