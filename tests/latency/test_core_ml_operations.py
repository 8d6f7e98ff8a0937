"""Latency over the operations of a converted program: what is charged, by stage and by compute unit."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.core_ml.semantics import SEMANTICS
from nas.latency import LatencyRecord, MeasurementFailedError, Workload, open_device
from nas.latency.calibrate import fit_coefficients, make_profile
from nas.latency.calibration_design import Program, design_programs, operations_of
from nas.latency.devices import PredictedDevice
from nas.latency.prediction.calibrated_terms import core_ml_terms
from nas.latency.prediction.core_ml_operations import COST_CLASS_OF, list_core_ml_operations
from nas.latency.prediction.predict import calibrated_cost
from nas.terminal.errors import UserError
from search_spaces import Decoder, LatentSpec
from tests.support.small_decoders import SPECS, make_config

SPEC = SPECS["16ch-4x8x8-leading"]
TINY = LatentSpec(channels=4, spatial=2, temporal=1)
UNITS = ("CPU_AND_NE", "CPU_ONLY")


class Doubler(nn.Module):
    """Frames of twice the size, and a group norm that Core ML does not take."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 12, 3, padding=1)
        self.norm = nn.GroupNorm(1, 4) if norm else nn.Identity()

    def forward(self, latents: Tensor) -> Tensor:
        """`(1, 4, t, h, w)` -> `(1, 3, t, 2 h, 2 w)`."""
        frames = self.norm(latents)[0].transpose(0, 1)
        return nn.functional.pixel_shuffle(self.conv(frames), 2).transpose(0, 1)[None]


def test_every_operation_that_can_be_proven_has_a_cost_class() -> None:
    assert COST_CLASS_OF.keys() == SEMANTICS.keys()


def test_operations_of_a_decoder_are_those_of_its_stages() -> None:
    config = make_config("memory2d", SPEC, 0)
    with torch.device("meta"):
        decoder = Decoder(config)
    found = list_core_ml_operations(decoder, SPEC, Workload(32, 32, 5))
    assert list(dict.fromkeys(each.stage for each in found)) == list(decoder.stage_modules())
    assert {"conv", "elementwise", "movement"} <= {each.cost_class for each in found}
    assert all((each.macs > 0) == (each.cost_class in ("conv", "depthwise_conv", "matmul")) for each in found)
    for each in found:
        assert (each.convolution is not None) == (each.cost_class in ("conv", "depthwise_conv"))


def test_any_other_module_is_converted_whole_without_weights() -> None:
    with torch.device("meta"):
        module = Doubler()
    record = open_device("iphone-16-pro").latency(module, TINY, Workload(16, 16, 3))
    assert list(record.by_stage) == ["decoder"] and record.by_stage["decoder"] == record.ms_per_frame
    assert all(parameter.is_meta for parameter in module.parameters())
    operations = list_core_ml_operations(module, TINY, Workload(16, 16, 3))
    assert [each.macs for each in operations if each.macs] == [3 * 64 * 12 * 4 * 9]


def test_what_core_ml_does_not_take_has_no_latency() -> None:
    with pytest.raises(MeasurementFailedError, match="cannot be converted to Core ML"):
        open_device("iphone-16-pro").latency(Doubler(norm=True), TINY, Workload(16, 16, 3))


def test_terms_count_rows_of_64_bytes_and_lanes() -> None:
    operations = list_core_ml_operations(Doubler(), TINY, Workload(16, 16, 3))
    (conv,) = (each for each in operations if each.cost_class == "conv")
    terms = core_ml_terms(conv)
    assert terms["conv.gmacs"] == pytest.approx(3 * 64 * 12 * 64 * 9 / 1e9)  # 4 channels fill 64 lanes
    # Rows of 8 pixels, of 3 weights and of 12 biases take 32 elements each.
    assert terms["conv.moved"] == pytest.approx(2 * 32 * (3 * 4 * 8 + 12 * 4 * 3 + 1 + 3 * 12 * 8) / 1e6)
    assert (terms["conv.overflow"], terms["conv.calls"]) == (0, 1)


def measured(program: Program, truth: dict[str, dict[str, float]]) -> LatencyRecord:
    """What Core ML would report on a device without noise."""
    frames, operations = program.workload.num_frames, operations_of(program, "coreml")
    ms = {units: sum(map(calibrated_cost(truth[units], "coreml"), operations)) for units in UNITS}
    best = min(ms, key=ms.__getitem__)
    return LatencyRecord(
        ms_per_frame=ms[best] / frames,
        kind="measured",
        device=f"a Mac, Core ML {best}",
        method="median of 30 predictions",
        **program.workload.to_dict(),
        dtype="float16",
        error=0.0,
        by_stage={"decoder": ms[best] / frames},
        details={
            "units": {units: {"device": "a Mac", "statistics": {"median_ms": value}} for units, value in ms.items()}
        },
    )


@pytest.mark.slow
def test_a_core_ml_device_is_calibrated_by_compute_unit(tmp_path: Path) -> None:
    fitted, unseen = design_programs(40, 6, 0, (0.05, 1.0))
    terms = {
        name for program in fitted + unseen for each in operations_of(program, "coreml") for name in core_ml_terms(each)
    }
    generator = np.random.default_rng(0)
    truth = {units: {name: float(generator.uniform(0.5, 2.0)) for name in sorted(terms)} for units in UNITS}
    # Calls are dear on one unit, arithmetic on the other: which is faster depends on the decoder.
    for name in terms:
        if name.endswith(".gmacs"):
            truth["CPU_AND_NE"][name] *= 0.02
            truth["CPU_ONLY"][name] *= 5
        if name.endswith(".calls"):
            truth["CPU_AND_NE"][name] *= 0.05
            truth["CPU_ONLY"][name] *= 0.002
    records = [measured(program, truth) for program in fitted + unseen]
    assert len({record.device for record in records}) == 2
    profile = make_profile(fitted, records[: len(fitted)], unseen, records[len(fitted) :], "coreml", 1)
    assert (profile.runtime, profile.device) == ("coreml", "a Mac, Core ML") and tuple(profile.coefficients) == UNITS
    assert profile.typical_error < 0.15 and profile.rank_correlation > 0.9
    path = tmp_path / "mac.json"
    path.write_text(json.dumps(profile.to_dict()))
    device = open_device(str(path))
    assert isinstance(device, PredictedDevice) and device.runtime == "coreml"
    for program, record in zip(unseen, records[len(fitted) :], strict=True):
        predicted = device.latency(program.build(weights=False), program.config.latents, program.workload)
        (point,) = (each for each in profile.points if each.digest == program.config.digest())
        assert predicted.ms_per_frame * program.workload.num_frames == pytest.approx(point.predicted_ms)
        assert predicted.device in [f"a Mac, Core ML {units}" for units in UNITS] and record.kind == "measured"


def test_a_setting_that_could_not_run_every_decoder_is_left_out() -> None:
    program = Program(make_config("memory2d", SPEC, 0), Workload(32, 32, 5))
    terms = {name for each in operations_of(program, "coreml") for name in core_ml_terms(each)}
    every = measured(program, {units: dict.fromkeys(terms, 1.0) for units in UNITS})
    one = dataclasses.replace(every, details={"units": {"CPU_ONLY": every.details["units"]["CPU_ONLY"]}})
    other = dataclasses.replace(every, details={"units": {"CPU_AND_NE": every.details["units"]["CPU_AND_NE"]}})
    assert fit_coefficients([program] * 2, [every, one], "coreml").keys() == {"CPU_ONLY"}
    with pytest.raises(UserError, match="no setting of the compute units could run every one"):
        fit_coefficients([program] * 2, [one, other], "coreml")
