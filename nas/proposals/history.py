"""What a study knows so far: its decoders, and how good those are that were trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import median

import optuna
from optuna.trial import FrozenTrial, TrialState

from blocks.registry import Option
from search_spaces import DecoderConfig


@dataclass(frozen=True)
class Known:
    """One decoder that was trained, to the end or until it was pruned."""

    number: int
    """Number of its trial."""
    config: DecoderConfig
    """The architecture."""
    params: dict[str, Option]
    """The choices that it embodies."""
    score: float
    """Score at the end; of a pruned one its last, plus what others gained from step to step after it (medians)."""


class History:
    """Reads a study; of every trial the config is read once, so one history serves a process.

    Trials that are running, were cut off, diverged, or are over the budget have no score and count as proposed.
    """

    def __init__(self) -> None:
        self._configs: dict[int, DecoderConfig] = {}
        self.known: list[Known] = []
        """Decoders with a score that meet the constraints, in the order of their trials; each once."""
        self.proposed: set[str] = set()
        """Digests of all decoders of the study."""

    def read(self, study: optuna.Study) -> None:
        """Bring everything up to date."""
        trials = study.get_trials(deepcopy=False)
        curves = [curve for trial in trials if _is_scored(trial) and (curve := _curve(trial))]
        gains = _gains(curves)
        self.proposed = {str(trial.user_attrs["digest"]) for trial in trials if "digest" in trial.user_attrs}
        found: dict[str, Known] = {}
        for trial in trials:
            if _is_scored(trial) and (curve := _curve(trial)):
                config, last = self._config(trial), max(curve)
                score = curve[last] + sum(gain for step, gain in gains.items() if step >= last)
                found.setdefault(config.digest(), Known(trial.number, config, dict(trial.params), score))
        self.known = list(found.values())

    def best(self, count: int) -> list[Known]:
        """The decoders with the highest scores, best first."""
        return sorted(self.known, key=lambda known: (-known.score, known.number))[:count]

    def _config(self, trial: FrozenTrial) -> DecoderConfig:
        if trial.number not in self._configs:
            self._configs[trial.number] = DecoderConfig.from_dict(trial.user_attrs["config"])
        return self._configs[trial.number]


def _is_scored(trial: FrozenTrial) -> bool:
    """Whether a trial has ended with something that is known of its quality."""
    met = all(violation <= 0 for violation in trial.constraints.values())
    ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return ended and met and "config" in trial.user_attrs and trial.user_attrs.get("status") != "failed"


def _curve(trial: FrozenTrial) -> dict[float, float]:
    """Scores by step; the one at the end by infinity."""
    curve: dict[float, float] = dict(trial.intermediate_values.items())
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        curve[inf] = trial.value
    return curve


def _gains(curves: Sequence[Mapping[float, float]]) -> dict[float, float]:
    """From each step to the next, the median gain of those that have both."""
    steps = sorted({step for curve in curves for step in curve})
    found = {}
    for before, after in pairwise(steps):
        gained = [curve[after] - curve[before] for curve in curves if before in curve and after in curve]
        found[before] = median(gained) if gained else 0.0
    return found
