"""Settings of a distillation, and what changes over its steps: learning rate and decay of the average."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from nas.distillation.schedule import average_decay, learning_rate
from nas.distillation.settings import DistillSettings


def rates(steps: int, warmup_steps: int, peak: float = 1.0) -> list[float]:
    return [learning_rate(step, steps, peak, warmup_steps) for step in range(steps)]


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    found = rates(100, 4, peak=2e-3)
    assert found[:5] == pytest.approx([0.4e-3, 0.8e-3, 1.2e-3, 1.6e-3, 2e-3])
    assert max(found) == found[4] == 2e-3


def test_decay_is_half_a_cosine_down_to_nearly_nothing() -> None:
    found = rates(104, 4)
    assert all(later < earlier for earlier, later in itertools.pairwise(found[4:]))
    assert found[4 + 50] == pytest.approx(0.5)
    assert found[4 + 25] == pytest.approx(0.8536, abs=1e-4)
    assert 0 < found[-1] < 1e-3


@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (1, 5), (2, 5), (5, 5), (6, 5), (30_000, 5)])
def test_every_step_learns_and_none_exceeds_the_peak(steps: int, warmup_steps: int) -> None:
    """Also where the warm-up is longer than the run."""
    assert all(0 < rate <= 1.0 for rate in rates(steps, warmup_steps))


def test_no_warm_up_starts_at_the_peak() -> None:
    assert rates(10, 0)[0] == 1.0


def test_average_forgets_the_start_and_then_keeps_its_decay() -> None:
    found = [average_decay(step, 0.99) for step in range(2000)]
    assert found[0] == pytest.approx(0.1)
    assert found[10] == pytest.approx(11 / 20)
    assert all(later >= earlier for earlier, later in itertools.pairwise(found))
    assert found[891] == pytest.approx(0.99) and max(found) == 0.99
    assert average_decay(500, 0.0) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"warmup_steps": -1},
        {"report_every": 0},
        {"checkpoint_every": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"clip_norm": math.inf},
        {"feature_weight": -0.1},
        {"truth_weight": math.nan},
        {"ema_decay": 1.0},
        {"betas": (0.9, 1.0)},
        {"precision": "float16"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(DistillSettings(steps=12), **wrong)
