"""How the front of a search grows with time."""

from collections.abc import Iterable, Sequence

import optuna

from nas.study.outcomes import finished_trials, outcome_of

Scored = list[float]
"""A decoder that a search has scored: seconds since its first proposal, milliseconds per frame, score in dB."""


def scored_decoders(study: optuna.Study) -> list[Scored]:
    """All that a search has trained to the end of the short distillation, in the order in which they were scored."""
    finished = finished_trials(study)
    starts = [trial.datetime_start for trial in finished if trial.datetime_start is not None]
    found = []
    for trial in finished:
        outcome = outcome_of(trial)
        if outcome.status == "scored" and outcome.score is not None and trial.datetime_complete is not None:
            seconds = (trial.datetime_complete - min(starts)).total_seconds()
            found.append([round(seconds, 1), outcome.latency.ms_per_frame, outcome.score])
    return sorted(found)


def hypervolume(decoders: Iterable[Scored], limit_ms: float, floor_db: float) -> float:
    """Area between the front and a floor, as a mean over all latencies up to the limit, in dB.

    At each latency the front has the best score of the decoders that are not slower, the floor where there is none.

    Args:
        decoders: what was scored.
        limit_ms: the latency budget in milliseconds per frame; slower decoders do not count.
        floor_db: scores below it count as much.
    """
    best, area, since = floor_db, 0.0, 0.0
    for _, latency_ms, score in sorted(decoders, key=lambda each: each[1]):
        if latency_ms > limit_ms:
            break
        area += (latency_ms - since) * (best - floor_db)
        best, since = max(best, score), latency_ms
    return (area + (limit_ms - since) * (best - floor_db)) / limit_ms


def growth(decoders: Sequence[Scored], limit_ms: float, floor_db: float, seconds: Iterable[float]) -> list[float]:
    """The hypervolume after so many seconds each."""
    return [hypervolume([each for each in decoders if each[0] <= now], limit_ms, floor_db) for now in seconds]
