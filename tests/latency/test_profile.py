"""The shipped profile: what it was fitted to, how well, and that it can be fitted again."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.latency import open_device
from nas.latency.prediction.operations import Operation
from nas.latency.prediction.predict import cost_terms
from nas.latency.prediction.profile import Machine, Profile, load_profile
from scripts import fit_iphone_profile
from scripts.fit_iphone_profile import PUBLISHED, Floats, fit_non_negative, fit_profile, leave_one_out, main

AMOUNTS = [
    [295.42012759341173, 2506.4641129411725],
    [41.60225280000001, 182.11265599999976],
    [146.25792, 1502.811400909092],
    [25.801877865411768, 160.8933948235294],
    [90.70972687058824, 1079.119905882353],
    [120.15151272658825, 2630.2392545882335],
]
"""Effective GMACs and off-chip MB of one frame of each published point."""


def test_cost_terms() -> None:
    machine = Machine(channel_lanes=64, depthwise_factor=16, on_chip_mb=24, row_elements=32)

    def terms(cost_class: str, **values: Any) -> tuple[float, ...]:
        nothing = {"macs": 0, "reads": (), "writes": ()}
        operation = Operation(name="x", cost_class=cost_class, stage="s", **{**nothing, **values})  # type: ignore[arg-type]
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


def test_published_frame_rates_give_the_shipped_coefficients() -> None:
    shipped = load_profile("iphone-16-pro")
    design, published = np.array(AMOUNTS), np.array([1000 / point[-1] for point in PUBLISHED])
    found = fit_non_negative(design, published)
    assert list(found) == pytest.approx(list(shipped.coefficients.values()), rel=1e-9)
    assert list(design @ found) == pytest.approx([point.fitted_ms for point in shipped.points], rel=1e-9)
    held_out = [point.held_out_ms for point in shipped.points]
    assert list(leave_one_out(design, published)) == pytest.approx(held_out, rel=1e-9)


def test_fit_is_non_negative_and_exact_where_it_can_be() -> None:
    design = np.array([[1.0, 5.0], [2.0, 1.0], [4.0, 3.0], [1.0, 1.0]])
    exact = design @ np.array([2.0, 0.5])
    assert fit_non_negative(design, exact) == pytest.approx([2.0, 0.5])
    assert leave_one_out(design, exact) == pytest.approx(exact)
    pulled_down = fit_non_negative(design, design[:, 0] * 2 - 0.1 * design[:, 1])
    assert (pulled_down >= 0).all() and pulled_down[1] == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_other_coefficients_have_a_smaller_relative_error(seed: int) -> None:
    """The conditions of Karush, Kuhn and Tucker: no gradient where a coefficient is positive, none downhill at 0."""
    generator = np.random.default_rng(seed)
    design: Floats = generator.uniform(0.1, 100, size=(8, 4))
    published: Floats = generator.uniform(1, 1000, size=8)
    found = fit_non_negative(design, published)
    relative = design / published[:, None]
    gradient = relative.T @ (relative @ found - 1)
    assert (found >= 0).all() and (found > 0).any()
    assert np.abs(gradient[found > 0]).max() < 1e-9
    assert (gradient[found == 0] > 0).all()


# The command


@pytest.fixture
def shipped_file() -> Path:
    return Path(fit_iphone_profile.__file__).parents[1] / "nas/latency/prediction/profiles/iphone-16-pro.json"


@pytest.mark.parametrize("out", [None, "folder/mine.json"])
def test_the_profile_is_written_where_it_is_asked_for(
    out: str | None,
    shipped_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile, before = load_profile("iphone-16-pro"), shipped_file.read_bytes()
    monkeypatch.setattr(fit_iphone_profile, "fit_profile", lambda: profile)
    monkeypatch.chdir(tmp_path)
    assert main([] if out is None else ["--out", out]) == 0
    written = tmp_path / (out or "iphone-16-pro.json")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [written]
    assert Profile.from_dict(json.loads(written.read_text())) == profile
    assert written.read_bytes() == shipped_file.read_bytes() == before
    printed = capsys.readouterr().out
    assert f"typical error {profile.typical_error:.0%}" in printed and f"wrote {out or 'iphone-16-pro.json'}" in printed


def test_a_file_that_cannot_be_written_is_refused_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit_iphone_profile, "fit_profile", lambda: pytest.fail("fitted"))
    assert main(["--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "is a folder: expected a file" in error and error.count("\n") == 1
    with pytest.raises(SystemExit) as end:
        main(["out.json"])
    assert end.value.code == 2 and "unrecognized arguments: out.json" in capsys.readouterr().err
