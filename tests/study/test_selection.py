"""Which candidates are finished: the best, within the noise the faster one, several that are unlike each other."""

from dataclasses import replace

from nas.study.outcomes import Outcome, best_outcomes
from nas.study.selection import are_alike, choose, choose_diverse
from search_spaces import PRESETS, DecoderConfig, LatentSpec, adapt
from tests.support.records import latency

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
HUNYUAN, COG, TAEHV = (
    adapt(PRESETS[name], LATENTS, 8) for name in ("turbo_vaed_hunyuan", "turbo_vaed_cog", "taehv_wan")
)
NARROW = adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS, 16)


def outcome(number: int, config: DecoderConfig, score: float, ms: float) -> Outcome:
    return Outcome(number, config, latency(ms), 1000, "scored", score)


def numbers(found: list[Outcome]) -> list[int]:
    return [each.number for each in found]


def test_within_the_noise_the_faster_one_is_better() -> None:
    found = [outcome(0, HUNYUAN, 28.0, 30.0), outcome(1, COG, 27.9, 20.0), outcome(2, TAEHV, 27.7, 10.0)]
    assert numbers(best_outcomes(found)) == [0, 1, 2]
    assert numbers(best_outcomes(found, 0.15)) == [1, 0, 2]
    assert numbers(best_outcomes(found, 0.5)) == [2, 1, 0]
    assert numbers(best_outcomes([*found, replace(found[0], number=3, latency=latency(9.0))])) == [3, 0, 1, 2]


def test_alike_are_the_same_parts_at_about_the_same_latency() -> None:
    assert are_alike(outcome(0, HUNYUAN, 28.0, 20.0), outcome(1, NARROW, 27.0, 19.0))
    assert not are_alike(outcome(0, HUNYUAN, 28.0, 20.0), outcome(1, NARROW, 27.0, 17.0))
    assert not are_alike(outcome(0, HUNYUAN, 28.0, 20.0), outcome(1, TAEHV, 27.0, 20.0))


def test_the_best_that_are_unlike_are_taken_and_others_only_to_fill_up() -> None:
    ranked = [
        outcome(0, HUNYUAN, 28.0, 20.0),
        outcome(1, NARROW, 27.9, 19.5),
        outcome(2, HUNYUAN, 27.0, 10.0),
        outcome(3, TAEHV, 26.0, 20.0),
    ]
    assert numbers(choose_diverse(ranked, 1)) == [0]
    assert numbers(choose_diverse(ranked, 3)) == [0, 2, 3]
    assert numbers(choose_diverse(ranked, 4)) == [0, 2, 3, 1]
    assert numbers(choose_diverse(ranked, 9)) == [0, 2, 3, 1] and choose_diverse([], 2) == []


def test_of_the_front_all_are_taken_the_best_first() -> None:
    ranked = [
        outcome(0, HUNYUAN, 28.0, 20.0),
        outcome(1, NARROW, 27.9, 19.5),
        outcome(2, COG, 27.5, 25.0),
        outcome(3, TAEHV, 26.0, 10.0),
    ]
    assert numbers(choose(ranked, 1, front=True)) == [0, 1, 3]
    assert numbers(choose(ranked, 1)) == [0]
