"""One trial: a candidate against the constraints, then its short distillation, then its outcome in the study."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.latency.record import MeasurementFailedError
from nas.study.candidate import Candidate
from nas.study.constraints import Constraint, all_met, excess
from nas.study.costs import Costs
from nas.study.outcomes import Outcome, Status, finished_trials, status_of
from nas.workers.job import Segment
from search_spaces import DecoderConfig

_UNBUILDABLE = 1000.0
"""Violation of the constraints by what cannot be built: worse than any latency."""


@dataclass
class Training:
    """A trial whose candidate is trained, job by job."""

    trial: optuna.Trial
    """The trial, which is running."""
    candidate: Candidate
    """The candidate."""
    costs: Costs
    """What the candidate costs."""
    steps: int = 0
    """Steps that it was trained for and told about."""


def begin_trial(
    study: optuna.Study, trial: optuna.Trial, candidate: Candidate, constraints: Sequence[Constraint]
) -> Training | Outcome:
    """Find out whether a candidate is worth training; if not, the study is told what became of it.

    Raises:
        MeasurementFailedError: the device cannot run it. The trial is still running then: see `drop_unmeasured`.
        NotBuildableError: a part cannot be built for its place. The trial is still running: see `drop_unbuildable`.
    """
    config, costs = candidate.config, known_costs(study, candidate)
    values = costs.values()
    for key, value in {"config": config.to_dict(), "digest": config.digest(), **costs.to_dict()}.items():
        trial.set_user_attr(key, value)
    for constraint in constraints:
        trial.set_constraint(constraint.name, constraint.violation(values[constraint.name]))
    training = Training(trial, candidate, costs)
    if not all_met(constraints, values):
        return end_trial(study, training, "over budget", TrialState.PRUNED, detail=excess(constraints, values))
    if (twin := _finished_twin(study, config)) is not None:
        return end_trial(study, training, "same", twin.state, twin.user_attrs["score"], f"as #{twin.number}")
    if problem := candidate.problem:
        return end_trial(study, training, "not exportable", TrialState.PRUNED, detail=problem)
    return training


def advance_trial(study: optuna.Study, training: Training, segment: Segment, steps: int) -> Outcome | None:
    """Tell the study what a job has found; what became of the candidate, or None if it is to be trained on.

    Args:
        study: the study, whose pruner decides.
        training: the trial.
        segment: what is known of the distillation now.
        steps: length of the whole distillation.
    """
    trial = training.trial
    training.candidate.record(trial.number, segment)
    if segment.failure:
        # To the sampler a failed trial says nothing, a worthless one that was stopped says to keep away.
        trial.report(0.0, training.steps + 1)
        return end_trial(study, training, "failed", TrialState.PRUNED, detail=segment.failure)
    for step, score in segment.curve:
        if step > training.steps:
            trial.report(score, step)
            training.steps = step
    score = segment.curve[-1][1]
    if training.steps >= steps:
        return end_trial(study, training, "scored", TrialState.COMPLETE, score)
    return end_trial(study, training, "pruned", TrialState.PRUNED, score) if trial.should_prune() else None


def end_trial(
    study: optuna.Study,
    training: Training,
    status: Status,
    state: TrialState,
    score: float | None = None,
    detail: str = "",
) -> Outcome:
    """Tell the study what became of a trial; it will not be trained any further."""
    trial, candidate = training.trial, training.candidate
    for key, value in {"status": status, "score": score, "detail": detail}.items():
        trial.set_user_attr(key, value)
    # Another search may have failed it just now; what it found stands, since the study has it.
    study.tell(trial, score if state == TrialState.COMPLETE else None, state, skip_if_finished=True)
    candidate.forget()
    preset = str(trial.user_attrs.get("preset", ""))
    costs = training.costs
    outcome = Outcome(trial.number, candidate.config, costs.latency, costs.parameters, status, score, detail, preset)
    return replace(outcome, latencies=costs.latencies, memory=costs.memory, size=costs.size)


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


def _finished_twin(study: optuna.Study, config: DecoderConfig) -> FrozenTrial | None:
    """The earlier trial of the same architecture that has a score."""
    digest = config.digest()
    twins = (trial for trial in finished_trials(study) if trial.user_attrs["digest"] == digest)
    return next((trial for trial in twins if status_of(trial) in ("scored", "pruned")), None)
