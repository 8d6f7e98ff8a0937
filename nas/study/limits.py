"""When a search ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import optuna

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
    """Nothing that was proposed met the budget."""

    def __init__(self, fastest: Outcome) -> None:
        super().__init__(f"the fastest of all proposals takes {fastest.latency.describe()}")
        self.fastest = fastest
        """The fastest proposal."""


def nothing_new(study: optuna.Study, limits: StudyLimits) -> bool:
    """Whether none of the last proposals was worth training.

    Raises:
        BudgetUnreachableError: no proposal ever met the constraints.
        UserError: no proposal that met them can be exported.
    """
    statuses = [status_of(trial) for trial in finished_trials(study)]
    last = statuses[-limits.fruitless :]
    if len(last) < limits.fruitless or not set(last).isdisjoint(TRAINED):
        return False
    if not set(statuses).isdisjoint(TRAINED):
        return True
    found = read_outcomes(study)
    if unfit := [outcome.detail for outcome in found if outcome.status == "not exportable"]:
        raise UserError(f"nothing within the budget can be exported: {unfit[0]}: choose another --space")
    raise BudgetUnreachableError(min(found, key=lambda outcome: outcome.latency.ms_per_frame))
