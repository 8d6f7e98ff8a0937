"""Multi-fidelity: candidates are trained rung by rung, and at each rung only the better ones go on.

Asynchronous successive halving (arXiv 1810.05934) with latency in mind, as in its multi-objective form (arXiv
2106.12639): a fast decoder is not stopped because slower ones are better. Going on continues a distillation.
"""

from collections.abc import Sequence
from math import log

import numpy as np
import optuna
from optuna.trial import FrozenTrial

REDUCTION = 3
"""Steps of a rung relative to those of the one before, and of how many candidates one goes on."""
_FEWEST = 3
"""Candidates at a rung before any is stopped there."""


def rungs(steps: int, count: int = 3) -> tuple[int, ...]:
    """The steps at which candidates are compared, up to the whole length: 540 -> 60, 180, 540.

    Args:
        steps: length of a whole short distillation.
        count: most rungs; there are fewer where the first would have no step.
    """
    found = [round(steps / REDUCTION**power) for power in range(count)]
    return tuple(sorted({step for step in found if step > 0}))


class FrontPruner(optuna.pruners.BasePruner):
    """Stops a candidate at a rung unless it is on the front there, or among the best third for its latency.

    How good it is for its latency is how far its score is above a line through the scores at that rung over the
    logarithm of latency, which is fitted to all candidates that have come so far.

    Args:
        steps: the rungs; what has reached the last is never stopped.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self._rungs = tuple(steps)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial stops at the rung that it has just reached."""
        step = trial.last_step
        if step not in self._rungs[:-1]:
            return False
        points = [_point(each, step) for each in study.get_trials(deepcopy=False) if _comparable(each, step)]
        if not _comparable(trial, step) or len(points) < _FEWEST:
            return False
        return not (_on_front(_point(trial, step), points) or _above_trend(_point(trial, step), points))


def next_rung(steps: Sequence[int], done: int) -> int:
    """The first rung after `done` steps."""
    return next(step for step in steps if step > done)


def _comparable(trial: FrozenTrial, step: int) -> bool:
    """Whether it was trained up to that step; what is worth nothing (see `nas.study.trial`) does not count."""
    return trial.intermediate_values.get(step, 0.0) > 0 and "latency" in trial.user_attrs


def _point(trial: FrozenTrial, step: int) -> tuple[float, float]:
    """Logarithm of the latency, and score at a step."""
    return log(trial.user_attrs["latency"]["ms_per_frame"]), trial.intermediate_values[step]


def _on_front(point: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    latency, score = point
    return not any(other[0] <= latency and other[1] > score for other in points)


def _above_trend(point: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    """Whether it is among the best third, of all that have come, by what its score is above the trend."""
    x, y = np.array(points).T
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = max(0.0, float(centred @ y) / spread) if spread > 0 else 0.0
    residuals = y - slope * centred
    mine = point[1] - slope * (point[0] - x.mean())
    return int((residuals > mine).sum()) < max(1, len(points) // REDUCTION)
