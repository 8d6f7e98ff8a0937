"""Calibration: what an operation is charged for, the design, the fit, and the whole command on this machine."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.latency import LatencyRecord, Workload, open_device
from nas.latency.__main__ import main
from nas.latency.calibrate import fit_coefficients, make_profile
from nas.latency.calibration_design import Program, design_programs, operations_of
from nas.latency.prediction.calibrated_profile import CalibratedProfile
from nas.latency.prediction.calibrated_terms import OVERFLOW, pytorch_terms
from nas.latency.prediction.operations import UnknownOperationError, list_operations
from nas.latency.prediction.predict import calibrated_cost, predict
from nas.latency.prediction.profile_files import read_profile
from nas.terminal.errors import UserError
from search_spaces import SEARCH_SPACES

GMACS = (0.2, 4.0)


def terms_of(module: nn.Module, *shape: int) -> dict[str, float]:
    (operation,) = list_operations(module, shape)
    return pytorch_terms(operation)


# Terms


def test_a_small_convolution_is_unrolled() -> None:
    macs = 7 * 8 * 9 * 6 * 4 * 27
    assert terms_of(nn.Conv3d(4, 6, 3, padding=1), 1, 4, 7, 8, 9) == {
        "unrolled_conv.gmacs": macs / 1e9,
        "unrolled_conv.outputs": 7 * 8 * 9 * 6 / 1e6,
        "unrolled_conv.weights": 6 * 4 * 27 / 1e6,
        "unrolled_conv.calls": 1,
        "unrolled_conv.columns": 7 * 8 * 9 * 4 * 27 / 1e6,
        "unrolled_conv.overflow": 0,
    }


def test_a_large_convolution_is_direct_and_fills_its_lanes() -> None:
    terms = terms_of(nn.Conv3d(24, 3, 3, padding=1), 1, 24, 9, 128, 128)
    positions = 9 * 128 * 128
    assert terms["direct_conv.gmacs"] == pytest.approx(positions * 27 * 32 * 16 / 1e9)
    assert terms["direct_conv.inputs"] == pytest.approx(positions * 24 / 1e6)
    assert terms["direct_conv.overflow"] == 0
    wide = terms_of(nn.Conv3d(64, 16, 3, padding=1), 1, 64, 9, 256, 256)
    assert wide["direct_conv.overflow"] == pytest.approx(9 * 65536 * 80 / 1e6 - 2 * OVERFLOW)


@pytest.mark.parametrize(
    ("module", "shape", "cost_class"),
    [
        (nn.Conv3d(8, 8, 3, padding=1, groups=8), (1, 8, 3, 8, 8), "depthwise_conv"),
        (nn.Conv3d(8, 8, 1), (1, 8, 3, 8, 8), "pointwise_conv"),
        (nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)), (1, 8, 3, 8, 8), "unrolled_conv"),
        (nn.Conv2d(8, 8, 3, padding=1), (3, 8, 8, 8), "direct_conv"),
        (nn.Conv2d(8, 8, 5, padding=2), (1, 8, 8, 8), "direct_conv"),
        (nn.SiLU(), (1, 8, 3, 8, 8), "traffic"),
        (nn.PixelShuffle(2), (1, 8, 8, 8), "movement"),
        (nn.Upsample(scale_factor=2), (1, 8, 8, 8), "resize"),
    ],
)
def test_cost_classes(module: nn.Module, shape: tuple[int, ...], cost_class: str) -> None:
    terms = terms_of(module, *shape)
    assert {name.split(".")[0] for name in terms} == {cost_class}
    assert terms[f"{cost_class}.calls"] == 1
    assert sum(terms.values()) > 1


# Design


@pytest.fixture(scope="module")
def programs() -> tuple[list[Program], list[Program]]:
    return design_programs(2, 4, 0, GMACS)


def test_the_design_has_every_part_and_shares_no_decoder(programs: tuple[list[Program], list[Program]]) -> None:
    assert design_programs(2, 4, 0, GMACS) == programs
    fitted, unseen = programs
    assert len(unseen) == 4
    digests = [program.config.digest() for program in fitted + unseen]
    assert len(set(digests)) == len(digests)
    for space in SEARCH_SPACES.values():
        blocks = {name for level in space.levels for name in level.blocks}
        ends = {*space.stems, *space.heads, *space.plain_heads}
        for part in {*blocks, *ends, *space.middles, *space.upsamplers, *space.shortcuts}:
            assert sum(f'"{part}"' in json.dumps(program.config.to_dict()) for program in fitted) >= 3
    for program in fitted[:3]:
        operations = operations_of(program, "pytorch")
        # Chosen by a smaller decode, times the number of pixels: not exact.
        assert GMACS[0] / 2 < sum(operation.macs for operation in operations) / 1e9 < GMACS[1] * 1.5


# Fit


def true_cost(program: Program, coefficients: dict[str, float]) -> LatencyRecord:
    """What a device without noise would measure, by stage."""
    operations = operations_of(program, "pytorch")
    by_stage: dict[str, float] = {}
    for operation in operations:
        ms = sum(coefficients[name] * amount for name, amount in pytorch_terms(operation).items())
        by_stage[operation.stage] = by_stage.get(operation.stage, 0.0) + ms / program.workload.num_frames
    load = program.workload
    return LatencyRecord(
        ms_per_frame=sum(by_stage.values()),
        kind="measured",
        device="a device",
        method="median of 3 decodes",
        height=load.height,
        width=load.width,
        num_frames=load.num_frames,
        dtype="float32",
        error=0.0,
        by_stage=by_stage,
    )


@pytest.fixture(scope="module")
def truth(programs: tuple[list[Program], list[Program]]) -> dict[str, float]:
    names = {
        name
        for program in programs[0] + programs[1]
        for operation in operations_of(program, "pytorch")
        for name in pytorch_terms(operation)
    }
    generator = np.random.default_rng(0)
    return {name: float(generator.uniform(0.5, 2.0)) for name in sorted(names)}


@pytest.mark.parametrize("by_stage", [True, False])
def test_a_device_without_noise_is_found(
    programs: tuple[list[Program], list[Program]], truth: dict[str, float], by_stage: bool
) -> None:
    fitted, unseen = programs
    records = [true_cost(program, truth) for program in fitted + unseen]
    if not by_stage:
        whole = [{**record.to_dict(), "by_stage": {"decoder": record.ms_per_frame}} for record in records]
        records = [LatencyRecord.from_dict(record) for record in whole]
    profile = make_profile(fitted, records[: len(fitted)], unseen, records[len(fitted) :], "pytorch", 2)
    assert profile.coefficients.keys() == {""} and min(profile.coefficients[""].values()) >= 0
    assert profile.typical_error < (1e-6 if by_stage else 0.2)
    assert profile.rank_correlation > 0.9
    assert profile.method == "fastest of 2 passes, each the median of 3 decodes"
    assert CalibratedProfile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_an_operation_that_was_not_measured_is_an_error(
    programs: tuple[list[Program], list[Program]], truth: dict[str, float]
) -> None:
    records = [true_cost(program, truth) for program in programs[0]]
    coefficients = fit_coefficients(programs[0], records, "pytorch")[""]
    (pooling,) = list_operations(nn.AvgPool2d(2), (1, 8, 8, 8))
    assert calibrated_cost(coefficients, "pytorch")(pooling) >= 0  # a cost class that it knows
    (product,) = list_operations(nn.Linear(8, 8), (4, 8))
    without = {name: ms for name, ms in coefficients.items() if not name.startswith("matmul")}
    with pytest.raises(UnknownOperationError, match="the profile knows no cost of matmul operations"):
        calibrated_cost(without, "pytorch")(product)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a device profile"),
        ("{}", "is not a device profile of this version"),
        ('{"format": "calibrated-2"}', "is a damaged device profile"),
        (
            '{"format": "calibrated-2", "points": [], "runtime": "pytorch", "coefficients": {"": {"x": -1}}}',
            "is a damaged device profile",
        ),
    ],
)
def test_files_that_are_no_profile(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text(text)
    with pytest.raises(UserError, match=reason):
        open_device(str(tmp_path / "host.json"))
    with pytest.raises(
        UserError, match=r"there is no device profile .*: make one with python -m nas.latency calibrate"
    ):
        read_profile(tmp_path / "missing.json")


def test_only_what_measures_is_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--device", "iphone-16-pro", "--out", str(tmp_path / "x.json")]) == 2
    assert "--device iphone-16-pro is predicted, not measured" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.slow
@pytest.mark.timing
def test_this_machine_is_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "host.json"
    words = ["--decoders", "20", "--held-out", "10", "--passes", "2", "--gmacs", "2", "--out", str(path)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["calibrate", *words]) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "rank correlation" in printed and f"--device {path}" in printed
    profile = read_profile(path)
    assert isinstance(profile, CalibratedProfile)
    assert profile.typical_error < 0.3 and profile.rank_correlation > 0.8
    for cost_class in ("unrolled_conv", "direct_conv", "traffic", "movement"):
        assert sum(ms for name, ms in profile.coefficients[""].items() if name.startswith(cost_class)) > 0, cost_class
    assert "CPU time" in profile.method and len(profile.points) == 10
    device = open_device(str(path))
    program = design_programs(1, 1, 5, (0.2, 2.0))[1][0]
    record = device.latency(program.build(weights=False), program.config.latents, program.workload)
    found = predict(operations_of(program, "pytorch"), profile, program.workload.num_frames)
    assert (record.kind, record.ms_per_frame, record.by_stage) == ("predicted", found.total, found.by_stage)
    assert device.describe(Workload(64, 64, 5)).startswith("at 64x64 x 5 frames, predicted for this machine (")
