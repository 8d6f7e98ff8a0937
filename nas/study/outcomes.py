"""What became of the proposals of a study, and which of them are best."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, cast, get_args

import optuna
from optuna.trial import FrozenTrial

from nas.latency import LatencyRecord
from nas.study.costs import Costs
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
    latencies: dict[str, LatencyRecord] = field(default_factory=dict)
    """Latency on each further device."""
    memory: int | None = None
    """Peak bytes of activations of the timed decode; None where nobody asked for it."""
    size: int | None = None
    """Bytes of the exported package; None where nobody asked for it."""
    origin: str = ""
    """Run and number of the trial that it was taken over from; empty if it was made here."""

    @property
    def costs(self) -> Costs:
        """Everything that constraints may be about."""
        return Costs(self.latency, self.parameters, self.latencies, self.memory, self.size)


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with an outcome, in order; those that were cut off or that the device could not run have none."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.is_finished() and "status" in trial.user_attrs]


def status_of(trial: FrozenTrial) -> Status:
    """How a finished trial ended."""
    return cast(Status, trial.user_attrs["status"])


def read_outcomes(study: optuna.Study) -> list[Outcome]:
    """What became of every finished proposal of a study, in order."""
    return [outcome_of(trial) for trial in finished_trials(study)]


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
                Costs.from_dict(attributes)
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
                outcome_of(trial)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"trial #{trial.number}: {missing}") from None


def outcome_of(trial: FrozenTrial) -> Outcome:
    """What became of a finished proposal.

    Raises:
        ValueError: its attributes are not what this program writes.
    """
    attributes = trial.user_attrs
    costs = Costs.from_dict(attributes)
    found = Outcome(
        number=trial.number,
        config=DecoderConfig.from_dict(attributes["config"]),
        latency=costs.latency,
        parameters=costs.parameters,
        status=status_of(trial),
        score=attributes["score"],
        detail=attributes["detail"],
        preset=attributes.get("preset", ""),
        latencies=costs.latencies,
        memory=costs.memory,
        size=costs.size,
        origin=_origin(attributes),
    )
    if attributes["digest"] != found.config.digest():
        raise ValueError("its digest is not that of its decoder")
    if found.status not in get_args(Status):
        raise ValueError(f"unknown status {found.status!r}")
    if not (found.score is None or (isinstance(found.score, float) and isfinite(found.score))):
        raise ValueError(f"its score has to be a finite number, got {found.score!r}")
    if found.score is None and found.status in ("scored", "pruned", "same"):
        raise ValueError(f"it is {found.status} and has no score")
    return found


def _origin(attributes: dict[str, Any]) -> str:
    """Run and number that a trial was taken over from, as `nas.study.imports` writes them; empty if it was not."""
    if "from" not in attributes:
        return ""
    return f"{attributes['from']['run']} #{attributes['from']['number']}"


def trained_count(study: optuna.Study) -> int:
    """Number of candidates that were trained, pruned ones included."""
    return sum(status_of(trial) in TRAINED for trial in finished_trials(study))


def best_outcomes(found: list[Outcome], noise_db: float = 0.0) -> list[Outcome]:
    """Scored candidates, best first, each architecture once.

    Args:
        found: what became of proposals.
        noise_db: difference of two scores up to which they are equal; of equals the fastest comes first.
    """
    scored = [outcome for outcome in found if outcome.status == "scored"]
    remaining = sorted(scored, key=lambda outcome: (-(outcome.score or 0.0), outcome.latency.ms_per_frame))
    ranked: list[Outcome] = []
    while remaining:
        least = (remaining[0].score or 0.0) - noise_db
        equals = [outcome for outcome in remaining if (outcome.score or 0.0) >= least]
        ranked.append(min(equals, key=lambda outcome: outcome.latency.ms_per_frame))
        remaining.remove(ranked[-1])
    return ranked


def pareto_front(found: list[Outcome]) -> list[Outcome]:
    """Scored candidates that no other beats in both latency and score, fastest first."""
    front: list[Outcome] = []
    for outcome in sorted(best_outcomes(found), key=lambda each: (each.latency.ms_per_frame, -(each.score or 0.0))):
        if not front or (outcome.score or 0.0) > (front[-1].score or 0.0):
            front.append(outcome)
    return front
