"""One trial: a candidate against the constraints, then its short distillation, then its outcome in the study."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.distillation.distill import DivergedError
from nas.latency.record import MeasurementFailedError
from nas.study.candidate import Candidate
from nas.study.constraints import Constraint, all_met, most_violated
from nas.study.costs import Costs
from nas.study.outcomes import Outcome, Status, finished_trials, status_of
from search_spaces import DecoderConfig

_UNBUILDABLE = 1000.0
"""Violation of the constraints by what cannot be built: worse than any latency."""


def run_trial(
    study: optuna.Study, trial: optuna.Trial, candidate: Candidate, constraints: Sequence[Constraint]
) -> Outcome:
    """Find out what becomes of a candidate, and tell the study.

    Raises:
        MeasurementFailedError: the device cannot run it. The trial is still running then: see `drop_unmeasured`.
        NotBuildableError: a part cannot be built for its place. The trial is still running: see `drop_unbuildable`.
    """
    config, costs = candidate.config, known_costs(study, candidate)
    values = costs.values()
    known = {"config": config.to_dict(), "digest": config.digest(), **costs.to_dict()}
    for key, value in known.items():
        trial.set_user_attr(key, value)
    for constraint in constraints:
        trial.set_constraint(constraint.name, constraint.violation(values[constraint.name]))
    twin = _finished_twin(study, config)
    status: Status
    detail, score = "", None
    if not all_met(constraints, values):
        status, state, detail = "over budget", TrialState.PRUNED, excess(constraints, values)
    elif twin is not None:
        status, state, score, detail = "same", twin.state, twin.user_attrs["score"], f"as #{twin.number}"
    elif problem := candidate.problem:
        status, state, detail = "not exportable", TrialState.PRUNED, problem
    else:
        status, state, score, detail = _train(trial, candidate)
    for key, value in {"status": status, "score": score, "detail": detail}.items():
        trial.set_user_attr(key, value)
    study.tell(trial, score if state == TrialState.COMPLETE else None, state)
    preset = str(trial.user_attrs.get("preset", ""))
    outcome = Outcome(trial.number, config, costs.latency, costs.parameters, status, score, detail, preset)
    return replace(outcome, latencies=costs.latencies, memory=costs.memory, size=costs.size)


def excess(constraints: Sequence[Constraint], values: Mapping[str, float]) -> str:
    """The value that is over its limit most, in words; empty if it is the latency on the first device."""
    worst = most_violated(constraints, values)
    return "" if worst.name == "latency" else worst.describe_value(values[worst.name])


def drop_unmeasured(study: optuna.Study, trial: optuna.Trial, config: DecoderConfig, reason: str) -> None:
    """End the trial of a decoder that the device cannot run; it has no outcome."""
    for key, value in {"digest": config.digest(), "unmeasured": reason}.items():
        trial.set_user_attr(key, value)
    study.tell(trial, state=TrialState.FAIL)


def drop_unbuildable(study: optuna.Study, trial: optuna.Trial, config: DecoderConfig, reason: str) -> None:
    """End the trial of a decoder that cannot be built; it has no outcome, but the sampler learns to avoid its like."""
    for key, value in {"digest": config.digest(), "unbuildable": reason}.items():
        trial.set_user_attr(key, value)
    trial.set_constraint("buildable", _UNBUILDABLE)
    study.tell(trial, state=TrialState.PRUNED)


def known_costs(study: optuna.Study, candidate: Candidate) -> Costs:
    """A decoder is measured once; an equal one takes those numbers, or that failure."""
    digest = candidate.config.digest()
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("digest") != digest:
            continue
        if "latency" in trial.user_attrs:
            return Costs.from_dict(trial.user_attrs)
        if "unmeasured" in trial.user_attrs:
            raise MeasurementFailedError(trial.user_attrs["unmeasured"])
    return candidate.costs


def _train(trial: optuna.Trial, candidate: Candidate) -> tuple[Status, TrialState, float | None, str]:
    """How it ended, its state for Optuna, its score in dB, and why it failed."""
    last: list[float] = []

    def report(step: int, score: float) -> None:
        last.append(score)
        trial.report(score, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        score = candidate.train(trial.number, report)
    except optuna.TrialPruned:
        return "pruned", TrialState.PRUNED, last[-1], ""
    except DivergedError as error:
        return "failed", TrialState.FAIL, None, str(error)
    return "scored", TrialState.COMPLETE, score, ""


def _finished_twin(study: optuna.Study, config: DecoderConfig) -> FrozenTrial | None:
    """The earlier trial of the same architecture that has a score."""
    digest = config.digest()
    twins = (trial for trial in finished_trials(study) if trial.user_attrs["digest"] == digest)
    return next((trial for trial in twins if status_of(trial) in ("scored", "pruned")), None)
