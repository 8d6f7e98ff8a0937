"""What became of the proposals of a study, and which of them are best."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, cast, get_args

import optuna
from optuna.trial import FrozenTrial

from nas.latency import LatencyRecord
from nas.machine.records import read_fields
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
    return [_outcome(trial) for trial in finished_trials(study)]


def check_trials(study: optuna.Study) -> None:
    """Read everything of a study that this program will read, its unfinished trials included.

    Raises:
        ValueError: something in it is not what this program writes; the message has the number of the trial.
    """
    trials = study.get_trials(deepcopy=False)
    if [trial.number for trial in trials] != list(range(len(trials))):
        raise ValueError("its trials are not numbered from 0 on")
    for trial in trials:
        attributes = trial.user_attrs
        try:
            if "latency" in attributes:
                read_fields(LatencyRecord, attributes["latency"])
            if "config" in attributes:
                DecoderConfig.from_dict(attributes["config"])
            texts = {"digest", "preset", "unmeasured", "detail"} & attributes.keys()
            if not all(isinstance(attributes[name], str) for name in texts):
                raise ValueError("a text is something else")
            if not isinstance(attributes.get("attempt", 1), int):
                raise ValueError("the number of attempts is something else")
            if not isinstance(attributes.get("choices", {}), dict):
                raise ValueError("its choices are something else")
            if trial.state.is_finished() and "status" in attributes:
                _outcome(trial)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"trial #{trial.number}: {missing}") from None


def _outcome(trial: FrozenTrial) -> Outcome:
    attributes = trial.user_attrs
    found = Outcome(
        number=trial.number,
        config=DecoderConfig.from_dict(attributes["config"]),
        latency=read_fields(LatencyRecord, attributes["latency"]),
        parameters=attributes["parameters"],
        status=status_of(trial),
        score=attributes["score"],
        detail=attributes["detail"],
        preset=attributes.get("preset", ""),
    )
    if attributes["digest"] != found.config.digest():
        raise ValueError("its digest is not that of its decoder")
    if found.status not in get_args(Status):
        raise ValueError(f"unknown status {found.status!r}")
    if not (found.score is None or (isinstance(found.score, float) and isfinite(found.score))):
        raise ValueError(f"its score has to be a finite number, got {found.score!r}")
    if found.score is None and found.status in ("scored", "pruned", "same"):
        raise ValueError(f"it is {found.status} and has no score")
    if not isinstance(found.parameters, int):
        raise ValueError(f"its parameters have to be a whole number, got {found.parameters!r}")
    return found


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
