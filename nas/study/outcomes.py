"""What became of the proposals of a study, and which of them are best."""

from dataclasses import dataclass
from typing import Literal, cast

import optuna
from optuna.trial import FrozenTrial

from nas.latency import LatencyRecord
from search_spaces import DecoderConfig

Status = Literal["scored", "pruned", "failed", "over budget", "not exportable", "same"]
"""How a proposal ended. The first three were trained; "same" has the architecture of an earlier one."""
TRAINED: tuple[Status, ...] = ("scored", "pruned", "failed")


@dataclass(frozen=True)
class Outcome:
    """What became of one proposal."""

    number: int
    """Number of the trial."""
    config: DecoderConfig
    """The architecture."""
    latency: LatencyRecord
    """Latency on the device that the budget is for."""
    parameters: int
    """Number of parameters."""
    status: Status
    """How the proposal ended."""
    score: float | None = None
    """PSNR against the teacher in dB; for a pruned one the last that was reported; None if it has none."""
    detail: str = ""
    """Why it failed or cannot be exported; which earlier proposal it equals."""
    preset: str = ""
    """Name of the published design that it is, if it is one."""


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with an outcome, in order; those that were cut off or that the device could not run have none."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.is_finished() and "status" in trial.user_attrs]


def status_of(trial: FrozenTrial) -> Status:
    """How a finished trial ended."""
    return cast(Status, trial.user_attrs["status"])


def read_outcomes(study: optuna.Study) -> list[Outcome]:
    """What became of every finished proposal of a study, in order."""
    return [
        Outcome(
            number=trial.number,
            config=DecoderConfig.from_dict(trial.user_attrs["config"]),
            latency=LatencyRecord.from_dict(trial.user_attrs["latency"]),
            parameters=trial.user_attrs["parameters"],
            status=status_of(trial),
            score=trial.user_attrs["score"],
            detail=trial.user_attrs["detail"],
            preset=trial.user_attrs.get("preset", ""),
        )
        for trial in finished_trials(study)
    ]


def trained_count(study: optuna.Study) -> int:
    """Number of candidates that were trained, pruned ones included."""
    return sum(status_of(trial) in TRAINED for trial in finished_trials(study))


def best_outcomes(found: list[Outcome]) -> list[Outcome]:
    """Scored candidates, best first, each architecture once."""
    scored = [outcome for outcome in found if outcome.status == "scored"]
    return sorted(scored, key=lambda outcome: (-(outcome.score or 0.0), outcome.latency.ms_per_frame))


def pareto_front(found: list[Outcome]) -> list[Outcome]:
    """Scored candidates that no other beats in both latency and score, fastest first."""
    front: list[Outcome] = []
    for outcome in sorted(best_outcomes(found), key=lambda each: (each.latency.ms_per_frame, -(each.score or 0.0))):
        if not front or (outcome.score or 0.0) > (front[-1].score or 0.0):
            front.append(outcome)
    return front
