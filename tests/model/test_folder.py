"""The model folder: complete or not there, its record, its card."""

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.model import TurboVAED
from nas.model import folder as model_folder
from nas.model.card import render_card
from nas.model.folder import read_record, record_package, write_model_folder
from nas.model.record import ModelRecord, PackageRecord
from nas.terminal.errors import UserError
from tests.model.test_model import frames_of, make_model
from tests.support.records import evaluation, make_record, quality
from tests.support.small_targets import make_targets

RECORD, OTHER = make_record(), make_record(parameters=7)
PACKAGE = PackageRecord("one decode, proven", {"psnr": 66.5})


def test_a_model_folder_holds_all_files(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "one"
    written = write_model_folder(folder, make_model(), RECORD)
    names = ["README.md", "config.json", "diffusion_pytorch_model.safetensors", "evaluation.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert read_record(folder) == written == replace(RECORD, weights_sha256=written.weights_sha256)
    weights = folder / "diffusion_pytorch_model.safetensors"
    assert written.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert read_record(folder.parent / "two") is None
    card = (folder / "README.md").read_text()
    numbers = ("| parameters | 22,732 |", "1.2 G", "31.25 dB", "0.9123")
    for text in (*numbers, "license: apache-2.0", "base_model: owner/name", "clips of {mine}/"):
        assert text in card


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failing", ["write_json", "write_bytes"])
def test_a_model_folder_is_complete_or_not_there(
    failing: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in the middle leaves what was there before and nothing else."""
    folder = tmp_path / "one"
    if existing:
        write_model_folder(folder, make_model(), RECORD)
    before = {path.name: path.read_bytes() for path in folder.glob("*")}

    def full(path: Path, data: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(model_folder, failing, full)
        with pytest.raises(UserError, match="cannot write the model folder: the disk is full"):
            write_model_folder(folder, make_model(gain=2.0), OTHER)
    assert list(tmp_path.iterdir()) == ([folder] if existing else [])
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
    written = write_model_folder(folder, make_model(gain=2.0), OTHER)
    assert read_record(folder) == written != RECORD
    assert list(tmp_path.iterdir()) == [folder]
    again = TurboVAED.from_pretrained(folder)
    latents = make_targets().split("test").batch([0]).latents
    assert torch.equal(frames_of(again, latents), frames_of(make_model(gain=2.0), latents))


FULL = replace(
    quality(31.25),
    lpips=0.05,
    psnr_spans=(31.25, 30.5, None, None),
    sharpness=0.871,
    detail_error=0.234,
    colour_mean=(0.5, -0.25, 0.0),
    colour_std=(-1.0, 0.0, 2.0),
    delta_e=1.5,
    flicker=3.25,
    stuck_frames=0.0,
    tile_seams=1.234,
    chunk_seams=None,
)
"""What is measured of decodes of 49 frames, with LPIPS of AlexNet alone."""
JUDGED = replace(evaluation(31.25), to_teacher=FULL, to_truth=FULL)
TEACHER = replace(evaluation(None), to_truth=replace(FULL, flicker=2.5))


def test_the_card_has_what_people_complain_of_and_what_was_not_measured() -> None:
    card = render_card(make_record(evaluation=JUDGED, teacher_evaluation=TEACHER))
    for line in (
        "| sharpness: high-band energy over the teacher's | 0.87 |",
        "| error of the strength of detail, place by place (1: no detail at all) | 0.23 |",
        "| drift of the mean of R, G, B, 8-bit steps | +0.50, -0.25, +0.00 |",
        "| flicker against the video, 8-bit steps (the teacher's) | 3.25 (2.50) |",
        "Not measured: LPIPS with VGG16, rFVD, decodes of more than 49 frames, latents that a diffusion model made.",
    ):
        assert f"\n{line}\n" in card
    assert "chunks" not in card and "None" not in card
    older = render_card(RECORD)
    assert "Not measured: LPIPS with AlexNet, LPIPS with VGG16, rFVD, sharpness, colour, flicker and seams." in older
    assert "Delta E" not in older


def test_a_record_survives_json() -> None:
    full = make_record(evaluation=JUDGED, teacher_evaluation=TEACHER)
    assert ModelRecord.from_dict(json.loads(json.dumps(full.to_dict()))) == full
    older = json.loads(json.dumps(RECORD.to_dict()))
    for member in (older["evaluation"]["to_teacher"], older["evaluation"]["to_truth"]):
        for name in ("sharpness", "lpips_vgg", "psnr_spans", "flicker"):
            del member[name]
    assert ModelRecord.from_dict(older) == RECORD
    for record in (RECORD, RECORD.with_package("decoder.mlpackage", PACKAGE), make_record(no_package="rank 6")):
        assert ModelRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_record_says_what_it_was_made_from() -> None:
    assert RECORD.is_made_from(RECORD.distillation, RECORD.unseen)
    assert not RECORD.is_made_from({**RECORD.distillation, "steps": 5}, RECORD.unseen)
    assert not RECORD.is_made_from(RECORD.distillation, "other")


@pytest.mark.parametrize("content", [{"format": 7}, [], {**RECORD.to_dict(), "curve": None}])
def test_a_record_of_another_version_is_one_clear_line(content: object, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"evaluation\.json is damaged or of another version of this program .*: del"):
        read_record(tmp_path)


def test_a_package_is_noted_and_the_rest_of_the_card_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_model_folder(folder, make_model(), make_record(no_package="rank 6"))
    card = folder / "README.md"
    assert card.read_text().endswith("## Core ML\n\nThere is no package: rank 6\n")
    card.write_text(card.read_text().replace("# Turbo-VAED", "# My own title, Turbo-VAED"))
    assert record_package(folder, "decoder.mlpackage", PACKAGE)
    assert record_package(folder, "decoder_8bit.mlpackage", replace(PACKAGE, summary="smaller"))
    record = read_record(folder)
    assert record is not None and list(record.packages) == ["decoder.mlpackage", "decoder_8bit.mlpackage"]
    assert record.no_package == ""
    text = card.read_text()
    assert "# My own title" in text and text.count("## Core ML") == 1 and "rank 6" not in text
    assert text.endswith("- `decoder.mlpackage`: one decode, proven\n- `decoder_8bit.mlpackage`: smaller\n")


def test_a_folder_without_a_record_is_left_as_it_is(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert not record_package(tmp_path, "decoder.mlpackage", PACKAGE)
    assert sorted(tmp_path.iterdir()) == before


def test_a_teacher_that_is_on_no_hub_has_no_base_model() -> None:
    card = render_card(make_record(teacher=replace(RECORD.teacher, repository="")))
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: diffusers\n") and "base_model" not in card
    assert "Licence of the teacher: Apache-2.0." in card
