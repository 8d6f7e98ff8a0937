"""Proposals that were cut off, by a kill and not by an error, are proposed again."""

from collections.abc import Callable, Container

import optuna
from optuna.trial import TrialState

from search_spaces import DecoderConfig

MAX_ATTEMPTS = 3
"""How often a proposal is tried that was cut off."""
CHOICES = "choices"
"""User attribute of a trial in the queue: what it proposes, which Optuna tells of a trial only once it was asked."""
REPEATS = "repeats"
"""User attribute of a trial whose decoder was in training already: number of the trial that trained it."""
_ENDED = {"status", "unmeasured", "unbuildable", REPEATS}
"""User attributes of trials that ended, other than by a kill."""

OnGivenUp = Callable[[int, str], None]
"""Called with the number and the decoder of a trial that was cut off too often to be queued again."""


def fail_all_running(study: optuna.Study, on_given_up: OnGivenUp) -> None:
    """Queue again what was in progress, when nobody works on the study."""
    running = running_numbers(study)
    for number in running:
        study.tell(number, state=TrialState.FAIL)
    requeue(study, running, on_given_up)


def running_numbers(study: optuna.Study) -> list[int]:
    """Numbers of the trials in progress, whoever works on them."""
    return [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]


def unfinished_digests(study: optuna.Study) -> set[str]:
    """Architectures that are in progress, or were cut off and are queued again."""
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("retry_of") for trial in trials if trial.state == TrialState.WAITING}
    numbers = retried | {trial.number for trial in trials if trial.state == TrialState.RUNNING}
    return {trial.user_attrs["digest"] for trial in trials if trial.number in numbers and "digest" in trial.user_attrs}


def requeue(study: optuna.Study, failed_now: Container[int], on_given_up: OnGivenUp) -> None:
    """Queue what every trial proposed that failed without an end, unless it was tried too often. Only one at a time.

    What is to be done is read from the study alone, so it does not matter who failed a trial, and a search that is
    killed in here loses nothing. A constraint is not taken over: it is set once, by the trial that measures.

    Args:
        study: the study.
        failed_now: numbers of the trials that were not known before to have been cut off.
        on_given_up: told of those of them that are not queued again.
    """
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("retry_of") for trial in trials}
    for trial in trials:
        if trial.state != TrialState.FAIL or trial.number in again or not _ENDED.isdisjoint(trial.user_attrs):
            continue
        attempt = int(trial.user_attrs.get("attempt", 1))
        if attempt < MAX_ATTEMPTS:
            choices = trial.user_attrs.get(CHOICES, {}) | trial.params
            attrs = {"retry_of": trial.number, "attempt": attempt + 1, CHOICES: choices}
            if "preset" in trial.user_attrs:
                attrs["preset"] = trial.user_attrs["preset"]
            study.enqueue_trial(choices, user_attrs=attrs)
        elif trial.number in failed_now:
            config = trial.user_attrs.get("config")
            on_given_up(trial.number, DecoderConfig.from_dict(config).summary() if config else "")
