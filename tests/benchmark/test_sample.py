"""The sample: the same for a seed, as many of each band, published designs among them."""

import pytest

from nas.benchmark.sample import BANDS, NOT_EXPORTABLE, band_of, draw_sample
from search_spaces import DecoderConfig, LatentSpec

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)


def widths(config: DecoderConfig) -> float:
    """A latency for nothing: the widths of all blocks, over 400."""
    return sum(stage.width * max(1, stage.depth) for stage in config.stages) / 400


def test_bands_go_from_one_limit_to_eight_times_it() -> None:
    assert BANDS[-1][1] / BANDS[0][0] == 8
    assert [low for low, _ in BANDS[1:]] == [high for _, high in BANDS[:-1]]
    assert [band_of(each) for each in (1.0, 1.1, 2.0, 2.1, 8.0, 8.1)] == [None, 0, 0, 1, 2, None]
    assert band_of(NOT_EXPORTABLE) is None


def test_every_band_is_filled_and_a_seed_decides() -> None:
    drawn = [draw_sample(LATENTS, 6, seed, lambda config: True, widths) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for sample in drawn:
        assert [entry.band for entry in sample] == [0] * 6 + [1] * 6 + [2] * 6
        assert len({entry.config.digest() for entry in sample}) == len(sample)
        published = [entry for entry in sample if "#" not in entry.title]
        assert 0 < len(published) <= 6
        assert {entry.title.split(" #")[0] for entry in sample} >= {"hybrid", "memory2d"}


def test_what_costs_too_much_is_never_timed() -> None:
    timed: list[DecoderConfig] = []

    def latency(config: DecoderConfig) -> float:
        timed.append(config)
        return widths(config)

    draw_sample(LATENTS, 2, 0, lambda config: len(config.stages) < 6, latency)
    assert timed and all(len(config.stages) < 6 for config in timed)


def test_bands_that_cannot_be_filled_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.benchmark.sample._MOST_DRAWS", 5)
    with pytest.raises(ValueError, match=r"5 random decoders gave .* of 100, .*: ask for fewer"):
        draw_sample(LATENTS, 100, 0, lambda config: True, widths)
