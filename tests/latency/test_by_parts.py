"""Latency as a sum over parts: what the whole prediction gives, and soon."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blocks import NotBuildableError, get_block
from nas.core_ml import part_reports
from nas.latency import MeasurementFailedError, Workload, predict
from nas.latency.devices import PredictedDevice, open_device
from nas.latency.prediction.by_parts import LatencyByParts
from nas.latency.prediction.calibrated_profile import CalibratedProfile
from nas.latency.prediction.core_ml_operations import list_core_ml_operations
from nas.terminal.errors import UserError
from search_spaces import SEARCH_SPACES, DecoderConfig, build_skeleton
from search_spaces.choices import RandomChooser
from tests.support.small_decoders import SPECS, make_config, small_config

SPEC = SPECS["16ch-4x8x8-leading"]
SMALL, USUAL = Workload(64, 64, 5), Workload(512, 512, 17)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    part_reports._KNOWN.clear()
    yield
    part_reports._KNOWN.clear()


def iphone() -> PredictedDevice:
    device = open_device("iphone-16-pro")
    assert isinstance(device, PredictedDevice)
    return device


@pytest.mark.parametrize(
    ("space", "count"),
    [("memory2d", 2), *(pytest.param(space, 30, marks=pytest.mark.slow) for space in SEARCH_SPACES)],
)
def test_the_sum_over_parts_is_the_whole_prediction(space: str, count: int) -> None:
    device = iphone()
    by_parts = device.by_parts(SMALL)
    for seed in range(count):
        config = make_config(space, SPEC, seed)
        with_skeleton = list_core_ml_operations(build_skeleton(config), SPEC, SMALL)
        whole = predict(with_skeleton, device.profile, SMALL.num_frames)
        bound = LatencyByParts(device.profile, SMALL).at_least(config)
        assert by_parts.predict(config) == whole
        assert 0 < bound <= whole.total * (1 + 1e-9)
        assert by_parts.at_least(config) == pytest.approx(whole.total, rel=1e-9)
        assert device.latency(build_skeleton(config), SPEC, SMALL).by_stage == whole.by_stage
        assert by_parts.fits(config, whole.total) and not by_parts.fits(config, whole.total * 0.999)


def test_a_bound_charges_for_no_arithmetic_on_weights() -> None:
    """Which a converter does beforehand: what is left of a sum of kernels is one convolution."""
    block = get_block("reparameterized_conv3d").Config()
    config = small_config(SPEC)
    config = replace(config, stages=(replace(config.stages[0], width=512, block=block), *config.stages[1:]))
    by_parts = iphone().by_parts(USUAL)
    part = next(part for _, part in by_parts.parts(config) if part.config == block)
    bound = by_parts.part_bound(part)
    by_parts.predict(config)  # after which what each part costs is exact
    exact = by_parts.part_bound(part)
    assert 0.9 * exact[""] <= bound[""] <= exact[""] and bound != exact


def test_a_decoder_over_the_budget_costs_no_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_reports, "to_mil", lambda *_, **__: pytest.fail("converted"))
    by_parts = iphone().by_parts(USUAL)
    space, chooser, seconds = SEARCH_SPACES["hybrid"], RandomChooser(random.Random(0)), []
    for _ in range(40):
        config = space.suggest(chooser, SPEC)
        started = time.perf_counter()
        if by_parts.at_least(config, 0.5) > 0.5:
            assert not by_parts.fits(config, 0.5)
            seconds.append(time.perf_counter() - started)
    assert len(seconds) >= 30


def test_a_part_that_cannot_be_built_or_converted_does_not_fit() -> None:
    by_parts = iphone().by_parts(SMALL)
    head = get_block("staged_pixel_shuffle_head").Config()
    config = small_config(SPEC)
    unbuildable = replace(config, head=head, stages=(*config.stages[:2], replace(config.stages[2], width=6)))
    with pytest.raises(NotBuildableError, match="staged_pixel_shuffle_head"):
        by_parts.predict(unbuildable)
    with pytest.raises(NotBuildableError, match="staged_pixel_shuffle_head"):
        by_parts.at_least(unbuildable)
    assert not by_parts.fits(unbuildable, 1e9)


def test_a_part_without_a_program_has_no_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    config: DecoderConfig = make_config("memory2d", SPEC, 0)
    monkeypatch.setattr(part_reports, "to_mil", lambda *_, **__: (_ for _ in ()).throw(NotImplementedError("unknown")))
    by_parts = iphone().by_parts(SMALL)
    with pytest.raises(MeasurementFailedError, match="stem: conv2d_stem: not convertible: unknown"):
        by_parts.predict(config)
    assert not by_parts.fits(config, 1e9)


def test_parts_are_not_summed_where_pytorch_runs_them() -> None:
    profile = CalibratedProfile(
        device="a computer",
        method="by a clock",
        runtime="pytorch",
        dtype="float32",
        coefficients={"": {"conv.gmacs": 1.0}},
        typical_error=0.1,
        p90_error=0.2,
        rank_correlation=0.9,
        points=(),
        fitted_to=10,
        fitted_on="2026-01-01T00:00:00+00:00",
        tool_version="0.1.0",
    )
    with pytest.raises(UserError, match="a computer runs PyTorch"):
        LatencyByParts(profile, SMALL)
