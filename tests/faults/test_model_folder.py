"""Model folders that are damaged, or are not what they are taken for: named as that, and never written over."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.model.folder import WEIGHTS, check_model, load_model, read_record, record_package, write_model_folder
from nas.model.record import ModelRecord, PackageRecord
from tests.model.test_model import make_model
from tests.support.errors import refusal
from tests.support.records import make_record


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, ModelRecord]:
    made = make_model()
    record = make_record(architecture=made.decoder.config.digest())
    return tmp_path / "model", write_model_folder(tmp_path / "model", made, record)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def turn_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


def other_weights(path: Path) -> None:
    make_model(gain=2.0).save_pretrained(path.parent)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "has lost its weights"),
    "empty": (empty, "is not what was saved there"),
    "cut off": (cut, "is not what was saved there"),
    "a bit": (turn_a_bit, "is not what was saved there"),
    "those of another model": (other_weights, "is not what was saved there"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_not_a_finished_model(damage: str, model: tuple[Path, ModelRecord]) -> None:
    folder, record = model
    check_model(folder, record)
    change, words = DAMAGES[damage]
    change(folder / WEIGHTS)
    line = refusal(lambda: check_model(folder, record))
    assert words in line and str(folder) in line and "make the model again" in line


def test_a_config_of_another_architecture_is_noticed(model: tuple[Path, ModelRecord]) -> None:
    folder, record = model
    check_model(folder, record)
    line = refusal(lambda: check_model(folder, make_record(weights_sha256=record.weights_sha256)))
    assert "is of another architecture than evaluation.json" in line


def renamed(tensors: dict[str, torch.Tensor]) -> None:
    tensors["decoder.stem.conv.wieght"] = tensors.pop("decoder.stem.conv.weight")


def reshaped(tensors: dict[str, torch.Tensor]) -> None:
    tensors["decoder.stem.conv.bias"] = torch.zeros(3)


CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (lambda tensors: tensors.pop("decoder.stem.conv.bias"), "1 missing (first decoder.stem.conv.bias)"),
    "renamed": (
        renamed,
        "1 missing (first decoder.stem.conv.weight), 1 unknown (first decoder.stem.conv.wieght)",
    ),
    "another shape": (reshaped, "1 of another shape (first decoder.stem.conv.bias)"),
    "none": (dict.clear, f"{WEIGHTS} is missing or empty"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_missing_or_renamed_tensor_is_named(change: str, model: tuple[Path, ModelRecord]) -> None:
    folder, _ = model
    load_model(folder)
    tensors = load_file(folder / WEIGHTS)
    alter, words = CHANGES[change]
    alter(tensors)
    save_file(tensors, folder / WEIGHTS)
    assert refusal(lambda: load_model(folder)) == (
        f"the weights in {folder} are not those of its config.json: {words}: restore the folder"
    )


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off"])
def test_weights_that_cannot_be_read_are_one_line(damage: str, model: tuple[Path, ModelRecord]) -> None:
    folder, _ = model
    DAMAGES[damage][0](folder / WEIGHTS)
    assert str(folder) in refusal(lambda: load_model(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"architecture": 3, "teacher": "x"}', b"\xff\xfe"])
def test_a_config_that_is_none_is_one_line(content: bytes, model: tuple[Path, ModelRecord]) -> None:
    folder, _ = model
    (folder / "config.json").write_bytes(content)
    assert str(folder) in refusal(lambda: load_model(folder))


def test_a_card_in_another_encoding_keeps_its_bytes(model: tuple[Path, ModelRecord]) -> None:
    folder, _ = model
    (folder / "README.md").write_bytes(b"caf\xe9\n")
    assert record_package(folder, os.fsdecode(b"d\xe9.mlpackage"), PackageRecord("small", {}))
    assert (folder / "README.md").read_bytes() == b"caf\xe9\n\n## Core ML\n\n- `d\xe9.mlpackage`: small\n"
    record = read_record(folder)
    assert record is not None and len(record.packages) == 1


def test_a_record_of_before_the_weights_had_a_digest_is_read(model: tuple[Path, ModelRecord]) -> None:
    folder, record = model
    data = record.to_dict()
    del data["weights_sha256"]
    (folder / "evaluation.json").write_text(json.dumps(data))
    read = read_record(folder)
    assert read is not None
    check_model(folder, read)
