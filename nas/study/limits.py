"""When a search ends."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna

from nas.study.constraints import Constraint, most_violated
from nas.study.outcomes import TRAINED, Outcome, finished_trials, read_outcomes, status_of
from nas.terminal.errors import UserError

Ending = Literal["trials", "time", "nothing new"]
"""Why a study ended: all candidates were trained, the time was over, or proposals gave nothing new to train."""


@dataclass(frozen=True)
class StudyLimits:
    """When a study ends."""

    trials: int
    """Candidates to train, over the whole life of the study; proposals that are not trained do not count."""
    seconds: float | None = None
    """Seconds after which no new candidate is started in this process; None: no limit."""
    clock: Callable[[], float] = time.monotonic
    """Clock of those seconds."""
    fruitless: int = 100
    """Proposals in a row that may give nothing to train (over budget, not exportable, known before)."""


class BudgetUnreachableError(Exception):
    """Nothing that was proposed met the constraints."""

    def __init__(self, found: Sequence[Outcome], constraints: Sequence[Constraint]) -> None:
        def worst(outcome: Outcome) -> tuple[Constraint, float]:
            values = outcome.costs.values()
            constraint = most_violated(constraints, values)
            return constraint, values[constraint.name]

        def violation(outcome: Outcome) -> float:
            constraint, value = worst(outcome)
            return constraint.violation(value)

        self.closest = min(found, key=violation)
        """The proposal whose largest violation is the least: with one constraint on latency the fastest one."""
        self.constraint, self.value = worst(self.closest)
        """The constraint that it violates most, and its value."""
        super().__init__(f"the closest of all proposals has {self.constraint.describe_value(self.value)}")


def nothing_new(study: optuna.Study, limits: StudyLimits, constraints: Sequence[Constraint]) -> bool:
    """Whether none of the last proposals was worth training.

    Raises:
        BudgetUnreachableError: no proposal ever met the constraints.
        UserError: no proposal that met them can be exported.
    """
    finished = finished_trials(study)
    statuses = [status_of(trial) for trial in finished]
    # What was taken over from another run was not proposed here.
    last = [status_of(trial) for trial in finished if "from" not in trial.user_attrs][-limits.fruitless :]
    if len(last) < limits.fruitless or not set(last).isdisjoint(TRAINED):
        return False
    if not set(statuses).isdisjoint(TRAINED):
        return True
    found = read_outcomes(study)
    if unfit := [outcome.detail for outcome in found if outcome.status == "not exportable"]:
        raise UserError(f"nothing within the budget can be exported: {unfit[0]}: choose another --space")
    raise BudgetUnreachableError(found, constraints)
