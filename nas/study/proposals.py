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


def enqueue_warm_starts(
    study: optuna.Study,
    space: SearchSpace,
    latents: LatentSpec,
    constraints: Sequence[Constraint],
    make_candidate: MakeCandidate,
    budget: Budget | None = None,
) -> None:
    """Queue the published designs with the costs that were found in choosing their widths.

    Those that are known to be over the budget before their latency is worked out are left out: they would take the time
    of a short search.
    """
    found: dict[DecoderConfig, Costs] = {}

    def hopeless(config: DecoderConfig) -> bool:
        return budget is not None and budget.share(config) > 1

    def fits(config: DecoderConfig) -> bool:
        if hopeless(config):
            return False
        try:
            found[config] = make_candidate(config).costs
        except (MeasurementFailedError, NotBuildableError):
            return False
        return all_met(constraints, found[config].values())

    for title, config in warm_starts(space, latents, fits):
        if hopeless(config):
            continue
        choices = space.params(config)
        known: dict[str, Any] = {"preset": title, CHOICES: choices}
        if config in found:
            known |= {"digest": config.digest(), **found[config].to_dict()}
        study.enqueue_trial(choices, user_attrs=known, skip_if_exists=True)


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
