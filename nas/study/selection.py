"""Which of the scored candidates are worth finishing: several that are good and unlike each other."""

from collections.abc import Sequence

from nas.study.outcomes import Outcome, pareto_front
from search_spaces import DecoderConfig

LEAST_DIFFERENCE = 0.1
"""Difference of two latencies, relative to the larger one, from which on decoders of the same parts are unlike."""


def choose(ranked: list[Outcome], count: int, *, front: bool = False) -> list[Outcome]:
    """What is finished: the front, the best first, or `count` candidates as `choose_diverse` takes them."""
    return pareto_front(ranked)[::-1] if front else choose_diverse(ranked, count)


def choose_diverse(ranked: Sequence[Outcome], count: int) -> list[Outcome]:
    """At most `count` candidates that are good and unlike each other.

    The best one is taken, then each time the best of those that are unlike all that were taken. Two are alike if they
    have the same parts in the same order, whatever their widths, depths and options, and their latencies differ by
    less than a tenth. Where too few are unlike, the best of the others follow.

    Args:
        ranked: candidates, the best first.
        count: how many are wanted.
    """
    taken: list[Outcome] = []
    for outcome in ranked:
        if len(taken) < count and not any(are_alike(outcome, each) for each in taken):
            taken.append(outcome)
    others = [outcome for outcome in ranked if outcome not in taken]
    return [*taken, *others[: count - len(taken)]]


def are_alike(one: Outcome, other: Outcome) -> bool:
    """Whether two candidates have the same parts in the same order and about the same latency."""
    first, second = one.latency.ms_per_frame, other.latency.ms_per_frame
    near = abs(first - second) < LEAST_DIFFERENCE * max(first, second)
    return near and _parts(one.config) == _parts(other.config)


def _parts(config: DecoderConfig) -> list[str]:
    """Names of the parts in the order of execution; what is repeated counts once."""
    names = [config.stem.name]
    for stage in config.stages:
        names += [part.name for part in (stage.transition, stage.upsampler, stage.block) if part is not None]
    return [*names, config.head.name]
