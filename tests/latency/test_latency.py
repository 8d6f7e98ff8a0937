"""Latency: budgets, records, operations counted, predictions, measurements, devices."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks import get_block
from nas.latency import LatencyRecord, Workload, list_devices, list_operations, measure, open_device, parse_budget
from nas.latency.prediction.predict import predict
from nas.latency.prediction.profile import load_profile
from nas.terminal.errors import UserError
from search_spaces import PRESETS, Decoder, DecoderConfig, LatentSpec, StageConfig, adapt

SPEC = LatentSpec(channels=4, spatial=2, temporal=1, frame_rule="multiple")
SMALL = Workload(height=16, width=16, num_frames=3)


class TinyDecoder(nn.Module):
    """Twice the height and width, no change in time; two stages and a head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv3d(4, width, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv3d(width, width, 3, padding=1), nn.SiLU()])
        self.head = nn.Conv3d(width, 12, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """`(b, 4, t, h, w)` -> `(b, 3, t, 2h, 2w)`."""
        x = self.stem(latents)
        for block in self.blocks:
            x = block(x)
        x = self.head(x)
        return functional.pixel_shuffle(x.transpose(1, 2), 2).transpose(1, 2)


def on_meta(config: DecoderConfig) -> Decoder:
    with torch.device("meta"):
        return Decoder(config)


def a_record(**changes: object) -> LatencyRecord:
    record = LatencyRecord(
        ms_per_frame=21.66,
        kind="predicted",
        device="iphone-16-pro",
        method="sum over operations",
        height=512,
        width=512,
        num_frames=17,
        dtype="float16",
        error=0.241,
        by_stage={"stem": 1.66, "stage0": 12.0, "head": 8.0},
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


# Budgets


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30ms", 30),
        ("30 ms", 30),
        (" 30MS ", 30),
        ("0.03s", 30),
        (".03 S", 30),
        ("33fps", 1000 / 33),
        ("24.5 FPS", 1000 / 24.5),
        ("1e1ms", 10),
    ],
)
def test_budget(text: str, ms: float) -> None:
    assert parse_budget(text) == pytest.approx(ms)


@pytest.mark.parametrize(
    "text",
    [
        "30",
        "0ms",
        "-5ms",
        "abc",
        "nan",
        "nanms",
        "inf",
        "infms",
        "",
        "ms",
        "1e400ms",
        "1e-400ms",
        "1e-320fps",
        "0fps",
        "30 m s",
        "30ms/frame",
        "3,5ms",
        "30ms\n30ms",
        "1e309s",
        "1e306s",
    ],
)
def test_budget_refused(text: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_budget(text)
    assert f"got {text!r}" in str(refusal.value)


def test_budget_without_unit_says_what_was_expected() -> None:
    with pytest.raises(UserError) as refusal:
        parse_budget("30")
    expected = "expected a duration such as 30ms or 0.03s, or a rate such as 33fps, got '30'"
    assert str(refusal.value) == expected


def test_budget_needs_no_torch() -> None:
    code = (
        "import sys; from nas.latency.budget import parse_budget; import nas.latency; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_attribute_of_the_package() -> None:
    import nas.latency

    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = nas.latency.no_such_thing


# Records


def test_record_round_trip() -> None:
    record = a_record()
    assert LatencyRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_record_describes_itself() -> None:
    expected = "21.7 ms per frame at 512x512 x 17 frames, predicted for iphone-16-pro (typical error 24%)"
    assert a_record().describe() == expected
    measured = a_record(kind="measured", device="this machine (x86_64 CPU, 2 threads)", error=0.03)
    assert measured.describe().endswith("measured on this machine (x86_64 CPU, 2 threads) (spread 3%)")
    assert a_record().dominant_stage() == "stage0"


def test_record_and_workload_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="'guessed'"):
        a_record(kind="guessed")
    for ms in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be positive"):
            a_record(ms_per_frame=ms)
    for height in (0, -16, 1.5, True):
        with pytest.raises(ValueError, match="height must be a whole number"):
            Workload(height=height, width=16, num_frames=1)  # type: ignore[arg-type]


# Prediction


def test_prediction_grows_with_width_and_with_size() -> None:
    device = open_device("iphone-16-pro")

    def latency(width: int, size: int) -> float:
        stage = StageConfig(width, 1, get_block("dense_conv3d").Config())
        stem, head = (get_block(name).Config() for name in ("conv3d_stem", "pixel_shuffle_head"))
        config = DecoderConfig(latents=SPEC, stem=stem, stages=(stage,), head=head)
        return device.latency(on_meta(config), SPEC, Workload(size, size, 3)).ms_per_frame

    for latencies in (
        [latency(width, 64) for width in (16, 32, 64, 128)],
        [latency(32, size) for size in (32, 64, 512)],
    ):
        assert latencies == sorted(set(latencies))


def test_prediction_is_per_frame_and_by_stage() -> None:
    profile = load_profile("iphone-16-pro")
    operations = list_operations(TinyDecoder(), (1, 4, 3, 8, 8))
    once = predict(operations, profile, 3)
    assert predict(operations * 2, profile, 3).total == pytest.approx(2 * once.total)
    assert predict(operations * 2, profile, 6).total == pytest.approx(once.total)
    assert sum(once.by_stage.values()) == pytest.approx(once.total)
    assert list(once.by_stage) == ["stem", "blocks.0", "blocks.1", "head"]


@pytest.mark.parametrize(
    ("preset", "frames", "fps"),
    [
        ("turbo_vaed_ltx", 17, 161.8),
        pytest.param("turbo_vaed_hunyuan", 17, 10.6, marks=pytest.mark.slow),
        pytest.param("turbo_vaed_dc", 16, 112.7, marks=pytest.mark.slow),
    ],
)
def test_published_decoders_are_predicted(preset: str, frames: int, fps: float) -> None:
    device, config = open_device("iphone-16-pro"), PRESETS[preset]
    record = device.latency(on_meta(config), config.latents, Workload(512, 512, frames))
    assert record.ms_per_frame == pytest.approx(1000 / fps, rel=0.2)
    assert record == device.latency(on_meta(config), config.latents, Workload(512, 512, frames))
    assert (record.kind, record.device, record.dtype) == ("predicted", "iphone-16-pro", "float16")
    assert sum(record.by_stage.values()) == pytest.approx(record.ms_per_frame)


# Measurement


def test_measurement_on_this_machine() -> None:
    decoder = TinyDecoder()
    record = measure(decoder, SPEC, SMALL, time_limit_s=0.3)
    assert record.kind == "measured" and record.device.startswith("this machine")
    assert record.ms_per_frame > 0 and record.error is not None and record.error >= 0
    assert record.workload == SMALL
    assert list(record.by_stage) == ["stem", "blocks.0", "blocks.1", "head"]
    assert sum(record.by_stage.values()) == pytest.approx(record.ms_per_frame)
    assert decoder.training and next(decoder.parameters()).dtype == torch.float32


def test_a_real_decoder_is_measured_by_stage() -> None:
    config = adapt(PRESETS["turbo_vaed_ltx"], PRESETS["turbo_vaed_ltx"].latents, width_divisor=8)
    record = open_device("host").latency(Decoder(config), config.latents, Workload(32, 32, 1))
    assert list(record.by_stage) == ["stem", "stage0", "stage1", "stage2", "stage3", "head"]
    assert sum(record.by_stage.values()) == pytest.approx(record.ms_per_frame)


def test_measurement_refuses_what_it_cannot_time() -> None:
    with torch.device("meta"):
        weightless = TinyDecoder()
    with pytest.raises(ValueError, match="meta device"):
        measure(weightless, SPEC, SMALL)
    with pytest.raises(ValueError, match=r"frames of shape \(1, 3, 3, 16, 16\)"):
        measure(nn.Conv3d(4, 3, 1), SPEC, SMALL)
    with pytest.raises(ValueError, match="height must be a multiple of 2, got 15"):
        measure(TinyDecoder(), SPEC, Workload(15, 16, 3))


# Devices


def test_devices() -> None:
    assert list_devices() == ["host", "iphone-16-pro", "coreml", "iphone"]
    host, phone = map(open_device, list_devices()[:2])
    assert (host.name, host.kind, host.error) == ("host", "measured", None)
    assert (phone.name, phone.kind) == ("iphone-16-pro", "predicted")
    words = phone.describe(Workload(512, 512, 17))
    assert phone.error is not None
    assert words == f"at 512x512 x 17 frames, predicted for iphone-16-pro (typical error {phone.error:.0%})"
    assert host.describe(SMALL).startswith("at 16x16 x 3 frames, measured on this machine (")


@pytest.mark.parametrize(("name", "near"), [("iphone-16", "iphone-16-pro"), ("hosst", "host")])
def test_unknown_device_names_the_near_one(name: str, near: str) -> None:
    with pytest.raises(UserError) as refusal:
        open_device(name)
    expected = f"unknown device '{name}': did you mean '{near}'? known: coreml, host, iphone, iphone-16-pro"
    assert str(refusal.value) == expected
