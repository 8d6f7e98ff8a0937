"""The Optuna sampler around a proposer: the first choice of a trial decides on its whole decoder."""

import random
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from nas.proposals.history import History
from nas.proposals.proposer import Proposal, Proposer
from search_spaces import LatentSpec, SearchSpace


class ProposalSampler(BaseSampler):
    """Asks a proposer once for each trial, and gives the choices of its decoder one by one.

    What a trial was queued with is never changed: the proposer is not asked where all choices are fixed. The random
    numbers of a trial depend on the seed and its number alone, so processes that share a study and a seed propose
    different decoders, and a resumed study goes on as it would have.

    Args:
        proposer: decides on decoders.
        space: the space that the study searches.
        latents: the latents that are decoded.
        seed: random seed.
    """

    def __init__(self, proposer: Proposer, space: SearchSpace, latents: LatentSpec, seed: int) -> None:
        self.proposer = proposer
        self._space = space
        self._latents = latents
        self._seed = seed
        self._history = History()
        self._proposals: dict[int, Proposal] = {}
        self._params: dict[int, dict[str, Any]] = {}

    def notes(self, number: int) -> dict[str, Any]:
        """How the decoder of a trial came to be proposed, for the trial's user attributes; {} if it was queued."""
        return dict(self._proposals[number].notes) if number in self._proposals else {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: every choice is sampled when it is asked for."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, as `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value that the trial's decoder has; at random where it has none, because another choice was queued."""
        assert isinstance(param_distribution, CategoricalDistribution)
        value = self._decided(study, trial).get(param_name)
        if value in param_distribution.choices and value is not None:
            return value
        return random.Random(f"{self._seed} {trial.number} {param_name}").choice(list(param_distribution.choices))

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """Forget the trial's proposal."""
        self._proposals.pop(trial.number, None)
        self._params.pop(trial.number, None)

    def _decided(self, study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Any]:
        if trial.number not in self._params:
            self._history.read(study)
            source = random.Random(f"{self._seed} {trial.number}")
            proposal = self.proposer.propose(study, trial, self._history, source)
            self._proposals[trial.number] = proposal
            self._params[trial.number] = self._space.params(proposal.config)
        return self._params[trial.number]


def note_origin(sampler: BaseSampler, trial: optuna.Trial) -> None:
    """Tell a trial how it came to be proposed; call it once all its choices are made. Other samplers have no notes."""
    if isinstance(sampler, ProposalSampler):
        for key, value in sampler.notes(trial.number).items():
            trial.set_user_attr(key, value)
