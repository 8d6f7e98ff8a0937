"""What a study knows so far: its decoders, and how good those are that were trained."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """Score at the end; of a pruned one its last, plus what others gained from that step on (their median)."""


class History:
    """Reads a study; of every trial the config is read once, so one history serves a process.

    Trials that are running, were cut off, or are over the budget have no score and count as proposed.
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
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        self.proposed = {str(trial.user_attrs["digest"]) for trial in trials if "digest" in trial.user_attrs}
        found: dict[str, Known] = {}
        for trial in trials:
            if not trial.state.is_finished() or "config" not in trial.user_attrs or not _meets_constraints(trial):
                continue
            score = _final_score(trial, complete)
            if score is not None:
                config = self._config(trial)
                found.setdefault(config.digest(), Known(trial.number, config, dict(trial.params), score))
        self.known = list(found.values())

    def best(self, count: int) -> list[Known]:
        """The decoders with the highest scores, best first."""
        return sorted(self.known, key=lambda known: (-known.score, known.number))[:count]

    def _config(self, trial: FrozenTrial) -> DecoderConfig:
        if trial.number not in self._configs:
            self._configs[trial.number] = DecoderConfig.from_dict(trial.user_attrs["config"])
        return self._configs[trial.number]


def _meets_constraints(trial: FrozenTrial) -> bool:
    return all(violation <= 0 for violation in trial.constraints.values())


def _final_score(trial: FrozenTrial, complete: Sequence[FrozenTrial]) -> float | None:
    """The score at the end, or what it would be; None if nothing is known of it."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    if trial.state != TrialState.PRUNED or not trial.intermediate_values:
        return None
    step = max(trial.intermediate_values)
    gains = [
        other.value - other.intermediate_values[step]
        for other in complete
        if other.value is not None and step in other.intermediate_values
    ]
    return trial.intermediate_values[step] + (median(gains) if gains else 0.0)
