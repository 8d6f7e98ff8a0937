"""The shipped profile: what it was fitted to, how well, and that it can be fitted again."""

import json
import warnings
from typing import Any

import numpy as np
import pytest

from nas.latency import open_device
from nas.latency.prediction.operations import Operation
from nas.latency.prediction.predict import cost_terms
from nas.latency.prediction.profile import Machine, Profile, load_profile
from scripts.fit_iphone_profile import fit_non_negative, fit_profile, leave_one_out


def test_cost_terms() -> None:
    machine = Machine(channel_lanes=64, depthwise_factor=16, on_chip_mb=24, row_elements=32)

    def terms(kind: str, **values: Any) -> tuple[float, ...]:
        nothing = {"macs": 0, "reads": (), "writes": ()}
        operation = Operation(name="x", kind=kind, stage="s", **{**nothing, **values})  # type: ignore[arg-type]
        return tuple(cost_terms(operation, machine).values())

    assert terms("conv", macs=10**9, channels_in=64) == (1, 0)
    assert terms("conv", macs=10**9, channels_in=16) == (4, 0)
    assert terms("conv", macs=10**9, channels_in=96) == pytest.approx((4 / 3, 0))
    assert terms("depthwise_conv", macs=10**9, channels_in=1) == (16, 0)
    assert terms("matmul", macs=10**9) == (1, 0)
    # 10 MB in; 25 MB out, of which 24 stay on the chip.
    assert terms("movement", reads=((5, 1000, 1024),), writes=((12500, 1000),)) == pytest.approx((0, 25.6 - 24))
    # A row of one element takes as much as one of 32.
    assert terms("movement", reads=((10**6, 1),)) == pytest.approx((0, 64 - 24))
    assert terms("movement", reads=((10**6, 33), (10**6, 1), ())) == pytest.approx((0, 128 + 64 - 24))


@pytest.fixture(scope="module")
def refit() -> Profile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_profile()


@pytest.mark.slow
def test_shipped_profile_equals_a_refit(refit: Profile) -> None:
    shipped = load_profile("iphone-16-pro")
    assert shipped.coefficients == pytest.approx(refit.coefficients, rel=1e-6)
    assert shipped.typical_error == pytest.approx(refit.typical_error, rel=1e-6)
    assert shipped.tried == pytest.approx(refit.tried, rel=1e-6)
    unchanged = {"coefficients": {}, "typical_error": 0.0, "tried": {}, "points": ()}
    unchanged |= {"fitted_on": "", "tool_version": ""}
    blank = [{**profile.to_dict(), **unchanged} for profile in (shipped, refit)]
    assert blank[0] == blank[1]
    for ours, again in zip(shipped.points, refit.points, strict=True):
        assert (ours.decoder, ours.height, ours.published_fps) == (again.decoder, again.height, again.published_fps)
        assert ours.held_out_ms == pytest.approx(again.held_out_ms, rel=1e-6)


def test_shipped_profile_states_its_errors() -> None:
    profile = load_profile("iphone-16-pro")
    left_out = [abs(point.held_out_error) for point in profile.points]
    assert sum(left_out) / len(left_out) == pytest.approx(profile.tried[profile.model])
    assert profile.tried[profile.model] == min(profile.tried.values())
    assert profile.tried[profile.model] <= profile.typical_error < 0.3
    assert open_device("iphone-16-pro").error == profile.typical_error
    assert all(point.fitted_ms == pytest.approx(point.published_ms, rel=0.17) for point in profile.points)
    assert all(point.held_out_ms == pytest.approx(point.published_ms, rel=0.2) for point in profile.points)
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_fit_is_non_negative_and_exact_where_it_can_be() -> None:
    design = np.array([[1.0, 5.0], [2.0, 1.0], [4.0, 3.0], [1.0, 1.0]])
    exact = design @ np.array([2.0, 0.5])
    assert fit_non_negative(design, exact) == pytest.approx([2.0, 0.5])
    assert leave_one_out(design, exact) == pytest.approx(exact)
    pulled_down = fit_non_negative(design, design[:, 0] * 2 - 0.1 * design[:, 1])
    assert (pulled_down >= 0).all() and pulled_down[1] == 0
