"""Device profiles as files: both formats, damaged ones, and names that a calibration is told."""

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from nas.latency import Workload, open_device
from nas.latency.__main__ import main
from nas.latency.prediction.calibrated_profile import CalibratedProfile
from nas.latency.prediction.profile import load_profile
from nas.latency.prediction.profile_files import read_profile
from nas.machine import files
from nas.machine.files import write_json
from nas.terminal.errors import UserError
from search_spaces import PRESETS, adapt, build_skeleton
from tests.support.damage import damaged_bytes, damaged_json
from tests.support.errors import refusal

CALIBRATED: dict[str, Any] = {
    "format": "calibrated-2",
    "device": "this machine",
    "method": "fastest of 2 passes",
    "runtime": "pytorch",
    "dtype": "float32",
    "coefficients": {"": {"traffic.gmacs": 1.5, "traffic.calls": 0}},
    "typical_error": 0.1,
    "p90_error": 0.2,
    "rank_correlation": 0.9,
    "points": [
        {
            **{"decoder": "mem2d 24", "digest": "ab", "height": 64, "width": 64, "num_frames": 5},
            **{"measured_ms": 3.0, "predicted_ms": 2.5},
        }
    ],
    "fitted_to": 46,
    "fitted_on": "2026-11-24T13:44+00:00",
    "tool_version": "0.1",
}


@pytest.mark.parametrize("name", ["copy.json", "COPY.JSON", "a:b.json"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_a_copy_of_the_profile_that_comes_with_the_program(
    mark: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = load_profile("iphone-16-pro")
    (tmp_path / name).write_text(mark + json.dumps(shipped.to_dict()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    copied, original = open_device(name), open_device("iphone-16-pro")
    preset = PRESETS["turbo_vaed_cog"]
    config = adapt(preset, preset.latents, 16)
    workload = Workload(64, 64, config.latents.largest_clip(17))
    records = [device.latency(build_skeleton(config), config.latents, workload) for device in (copied, original)]
    assert records[0] == records[1] and copied.kind == "predicted"
    write_json(tmp_path / name, CALIBRATED)
    assert open_device(name).name == "this machine"


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "a whole number that is a truth value": ({"fitted_to": True}, "'fitted_to' has to be a whole number, got True"),
    "a text in place of a number": ({"typical_error": "0.1"}, "'typical_error' has to be a finite number, got '0.1'"),
    "a list in place of an object": ({"coefficients": []}, "'coefficients' has to be an object"),
    "a coefficient of another type": ({"coefficients": {"": {"a": None}}}, "'coefficients' has to be an object"),
    "a number without end": ({"p90_error": 10**400}, "'p90_error' has to be a finite number"),
    "another runtime": ({"runtime": "onnx"}, "'runtime' has to be 'pytorch' or 'coreml', got 'onnx'"),
    "something added": ({"colour": 1}, "'colour' is not known"),
    "no name": ({"device": None}, "'device' has to be a text, got None"),
    "points that are no list": ({"points": {}}, "'points' has to be a list"),
    "a point that is none": ({"points": [1]}, "'points[0]': expected an object, got 1"),
    "a point measured at no time": ({"points": [{**CALIBRATED["points"][0], "measured_ms": 0}]}, "times are above 0"),
}


@pytest.mark.parametrize("row", DAMAGES)
def test_a_damaged_profile_says_where(row: str, tmp_path: Path) -> None:
    changes, reason = DAMAGES[row]
    write_json(tmp_path / "a.json", CALIBRATED | changes)
    message = refusal(lambda: open_device(str(tmp_path / "a.json")))
    assert "is a damaged device profile" in message and reason in message


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("x" * 300 + ".json", "a name in the path is too long"),
        ("folder.json", "it is a folder, not a file"),
        ("no.json", "there is no device"),
    ],
)
def test_profiles_that_cannot_be_read(path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.json").mkdir()
    assert reason in refusal(lambda: open_device(path))


def test_a_profile_that_charges_nothing_or_lacks_a_cost_is_refused_when_it_is_used(tmp_path: Path) -> None:
    preset = PRESETS["turbo_vaed_cog"]
    config = adapt(preset, preset.latents, 16)
    workload = Workload(64, 64, config.latents.largest_clip(17))
    shipped = load_profile("iphone-16-pro").to_dict()
    files = {
        "free": (shipped | {"coefficients": {"gmacs": 0, "off_chip_mb": 0}}, "predicts 0.0 ms for a decoder"),
        "endless": (shipped | {"coefficients": {"gmacs": 1e308, "off_chip_mb": 1e308}}, "predicts inf ms"),
        "lacking": (CALIBRATED, "the profile knows no cost of"),
    }
    for name, (content, reason) in files.items():
        write_json(tmp_path / f"{name}.json", content)
        device = open_device(str(tmp_path / f"{name}.json"))
        assert reason in refusal(lambda device=device: device.latency(build_skeleton(config), config.latents, workload))  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged_is_one_line_or_no_damage(seed: int, tmp_path: Path) -> None:
    """Bytes and values of both formats: a profile is read, or refused; nothing else happens."""
    generator, path, refused = random.Random(seed), tmp_path / "a.json", 0
    for content in (CALIBRATED, load_profile("iphone-16-pro").to_dict()):
        for _ in range(150):
            damage = damaged_bytes if generator.random() < 0.4 else damaged_json
            path.write_bytes(before := damage(content, generator))
            try:
                read_profile(path)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and str(path) in str(error)
            assert path.read_bytes() == before
    assert refused > 150


# What calibrate is told to write


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("profile", "has to be named something.json"),
        ("profile.txt", "has to be named something.json"),
        ("folder.json", "is a folder: expected a file"),
        ("file/a.json", "a part of the path is a file, not a folder"),
        ("x" * 300 + ".json", "a name in the path is too long"),
        ("y" * 300 + "/a.json", "a name in the path is too long"),
    ],
)
def test_calibrate_refuses_a_name_before_it_measures(
    out: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.json").mkdir()
    Path("file").touch()
    monkeypatch.setattr("nas.latency.calibration_design.design_programs", lambda *_: pytest.fail("has begun"))
    assert main(["calibrate", f"--out={out}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and reason in error
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder.json"]


def test_calibrate_refuses_a_place_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(files, "temporary_file", refuse)
    assert main(["calibrate", "--out", str(tmp_path / "new" / "a.json")]) == 2
    assert "cannot write the profile: permission is denied" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("out", ["a.json", "new/folder/a.json", "-a.json", os.fsdecode(b"\xff.json"), "A.JSON"])
def test_what_calibrate_recommends_is_taken(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = CalibratedProfile.from_dict(CALIBRATED)
    monkeypatch.setattr("nas.latency.calibration_design.design_programs", lambda *_: ([], []))
    monkeypatch.setattr("nas.latency.calibrate.measure_programs", lambda *_: [])
    monkeypatch.setattr("nas.latency.calibrate.make_profile", lambda *_: made)
    assert main(["calibrate", f"--out={out}"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next")]
    assert line.endswith((f"--device {out}", f"--device ./{out}", "--device '\\udcff.json'"))
    from nas.search import make_parser

    words = [f"./{out}" if out.startswith("-") else out]
    arguments = make_parser().parse_args(["--latency-budget", "30ms", "--device", *words])
    assert [open_device(name).name for name in arguments.device] == ["this machine"]
