"""Proposals of a study: the published designs first, then what the sampler asks for."""

from collections.abc import Sequence
from typing import Any

import optuna

from blocks import NotBuildableError
from nas.latency import parse_budget
from nas.latency.record import MeasurementFailedError
from nas.proposals.budget import Budget, budget_on
from nas.proposals.registry import make_sampler
from nas.proposals.sampler import ProposalSampler, note_origin
from nas.study.candidate import MakeCandidate
from nas.study.constraints import Constraint, all_met
from nas.study.costs import Costs
from nas.study.retries import CHOICES
from nas.study.short_distillation import ShortDistillation
from nas.terminal.errors import UserError
from search_spaces import DecoderConfig, LatentSpec, SearchSpace, warm_starts

ALL_PUBLISHED_QUEUED = "warm_started"
"""Attribute of a study that says that it needs no more published designs."""


class PublishedDesigns:
    """The published designs that a study begins with, queued one by one, so that training begins with the first.

    Those that are known to be over the budget before their latency is worked out are left out: they would take the time
    of a short search.

    Args:
        study: where they are queued; it keeps whether they all were.
        space, latents: what is searched.
        constraints: what a decoder may cost.
        make_candidate: makes a candidate, whose costs say how narrow a design has to be.
        budget: what is known of the latency budget before a trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        latents: LatentSpec,
        constraints: Sequence[Constraint],
        make_candidate: MakeCandidate,
        budget: Budget | None = None,
    ) -> None:
        self._study, self._space, self._budget = study, space, budget
        self._constraints, self._make_candidate = constraints, make_candidate
        self._found: dict[DecoderConfig, Costs] = {}
        done = study.user_attrs.get(ALL_PUBLISHED_QUEUED)
        self._remaining = iter(()) if done else warm_starts(space, latents, self._fits)
        self._next: tuple[str, DecoderConfig] | None = None

    def find_next(self) -> None:
        """Find out which comes next, and how narrow it has to be. That takes a while, and nothing is written."""
        while self._next is None:
            found = next(self._remaining, None)
            if found is None:
                return
            if not self._is_hopeless(found[1]):
                self._next = found

    def queue_next(self) -> None:
        """Queue the next one that the study does not have, with the costs that were found in choosing its width."""
        self.find_next()
        while self._next is not None:
            (title, config), self._next = self._next, None
            choices = self._space.params(config)
            known: dict[str, Any] = {"preset": title, CHOICES: choices}
            if config in self._found:
                known |= {"digest": config.digest(), **self._found[config].to_dict()}
            before = len(self._study.get_trials(deepcopy=False))
            self._study.enqueue_trial(choices, user_attrs=known, skip_if_exists=True)
            if len(self._study.get_trials(deepcopy=False)) > before:
                return
            self.find_next()
        if not self._study.user_attrs.get(ALL_PUBLISHED_QUEUED):
            self._study.set_user_attr(ALL_PUBLISHED_QUEUED, True)

    def _is_hopeless(self, config: DecoderConfig) -> bool:
        return self._budget is not None and self._budget.share(config) > 1

    def _fits(self, config: DecoderConfig) -> bool:
        if self._is_hopeless(config):
            return False
        try:
            self._found[config] = self._make_candidate(config).costs
        except (MeasurementFailedError, NotBuildableError):
            return False
        return all_met(self._constraints, self._found[config].values())


def budget_of(distillation: ShortDistillation) -> Budget | None:
    """What is known of the latency budget before a trial; None where latency is not predicted."""
    settings = distillation.run.settings
    return budget_on(distillation.latency_device, settings.workload, parse_budget(settings.budget))


def sampler_of(distillation: ShortDistillation, space: SearchSpace, budget: Budget | None) -> ProposalSampler:
    """The sampler of a search: the proposer that its run names."""
    settings = distillation.run.settings
    return make_sampler(settings.proposer, settings.seed, space, distillation.targets.spec, budget)


def propose(study: optuna.Study, space: SearchSpace, latents: LatentSpec) -> tuple[optuna.Trial, DecoderConfig]:
    """The next proposal; UserError if the choices in the study are not those of the space."""
    trial = study.ask()
    try:
        config = space.suggest(trial, latents)
    except ValueError as error:
        raise UserError(
            f"the study does not fit the space '{space.name}' ({error}): start a new run with another --run"
        ) from error
    note_origin(study.sampler, trial)
    return trial, config
