"""Intervals over clips: those of SciPy's bootstrap, and they hold the true mean as often as they say."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from nas.evaluation.confidence import RESAMPLES, interval, paired_difference


def test_the_interval_is_that_of_scipy() -> None:
    """As far as other draws let it."""
    values = np.random.default_rng(1).gamma(2.0, 3.0, 40).tolist()
    found = interval(values)
    theirs = bootstrap((values,), np.mean, n_resamples=50 * RESAMPLES, batch=RESAMPLES, method="percentile")
    low, high = theirs.confidence_interval
    assert found.mean == pytest.approx(np.mean(values)) and found.clips == 40
    assert found.low == pytest.approx(low, abs=0.1) and found.high == pytest.approx(high, abs=0.1)


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    intervals = [interval(generator.normal(5.0, 2.0, 30).tolist()) for _ in range(300)]
    held = np.mean([each.low <= 5 <= each.high for each in intervals if each.low is not None and each.high is not None])
    assert 0.9 <= held <= 0.98


def test_the_same_numbers_have_the_same_interval() -> None:
    assert interval([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])
    assert interval([3.0] * 5) == type(interval([3.0]))(3.0, 3.0, 3.0, 5)


def test_one_clip_says_nothing_of_others() -> None:
    found = interval([3.0])
    assert (found.mean, found.low, found.high, found.clips, found.is_clear) == (3.0, None, None, 1, False)


def test_pairing_sees_what_the_spread_of_clips_hides() -> None:
    """Two models that differ by 0.3 dB on clips that differ by many."""
    generator = np.random.default_rng(3)
    first = generator.normal(30.0, 5.0, 12)
    second = first - 0.3 + generator.normal(0.0, 0.05, 12)
    apart = interval(first.tolist()), interval(second.tolist())
    assert apart[0].low is not None and apart[1].high is not None and apart[0].low < apart[1].high
    difference = paired_difference(first.tolist(), second.tolist())
    assert difference.mean == pytest.approx(0.3, abs=0.05) and difference.is_clear
    assert not paired_difference([1.0, -1.0, 2.0, -2.0], [0.0] * 4).is_clear
