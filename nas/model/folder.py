"""The model folder: what a search ends in, and what is published.

config.json, diffusion_pytorch_model.safetensors    for `TurboVAED.from_pretrained`
evaluation.json                                     all numbers
README.md                                           the model card
pictures/                                           strips and videos of two clips
*.mlpackage                                         for Core ML
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

import torch
from safetensors import SafetensorError, safe_open

from nas.machine.files import disk_errors, read_json, write_bytes, write_json
from nas.machine.reading import understanding
from nas.machine.temporary import put_in_place, temporary_folder
from nas.model.card import PICTURES, render_card, replace_packages
from nas.model.record import ModelRecord, PackageRecord
from nas.model.turbo_vaed import TurboVAED
from nas.terminal.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""File of a model's weights in its folder."""

_RECORD, _CARD = "evaluation.json", "README.md"


def write_model_folder(
    folder: Path,
    model: TurboVAED,
    record: ModelRecord,
    package: Path | None = None,
    pictures: Mapping[str, bytes] = MappingProxyType({}),
) -> ModelRecord:
    """Write all files, then move the whole folder into place: it is there complete, or not at all.

    Args:
        folder: where to; what is there is replaced in one step.
        model: the student.
        record: what is known of it.
        package: a Core ML package to take in, under its name.
        pictures: strips and videos by file name.

    Returns:
        The record with the digest of the weights.

    Raises:
        UserError: the disk does not take it; what was there before is still there.
    """
    doing = "cannot write the model folder"
    with disk_errors(doing):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent) as work, disk_errors(doing, work):
            new = work / "model"
            model.save_pretrained(new)
            record = replace(record, weights_sha256=_digest(new / WEIGHTS))
            write_json(new / _RECORD, record.to_dict())
            write_bytes(new / _CARD, render_card(record, sorted(pictures)).encode(errors="surrogateescape"))
            for name, data in pictures.items():
                write_bytes(new / PICTURES / name, data)
            if package is not None:
                shutil.move(package, new / package.name)
            put_in_place(new, folder)
    return record


def is_model_folder(folder: Path) -> bool:
    """Whether finalize has written a model there."""
    return (folder / _RECORD).is_file() and (folder / "config.json").is_file()


def check_model(folder: Path, record: ModelRecord) -> None:
    """Refuse a folder that does not hold the model that its record is about.

    Raises:
        UserError: the weights or the config are missing, damaged, or of another model.
    """
    weights = folder / WEIGHTS
    remedy = f"put the file back, or move {folder} away and make the model again"
    with disk_errors(f"cannot read the model in {folder}"):
        if not weights.is_file():
            raise UserError(f"{folder} has lost its weights ({WEIGHTS}): {remedy}")
        if record.weights_sha256 and _digest(weights) != record.weights_sha256:
            raise UserError(f"{weights} is not what was saved there (cut off or overwritten): {remedy}")
    if load_model(folder).decoder.config.digest() != record.architecture:
        raise UserError(f"{folder / 'config.json'} is of another architecture than {_RECORD}: {remedy}")


def read_record(folder: Path) -> ModelRecord | None:
    """What is known of the model of a folder; None if nothing is.

    Raises:
        UserError: its evaluation.json is damaged or was written by another version.
    """
    path = folder / _RECORD
    if not path.exists():
        return None
    with understanding(path, f"delete or move {folder}, then make the model again"):
        return ModelRecord.from_dict(read_json(path))


def load_model(folder: Path) -> TurboVAED:
    """The model of a folder, on the CPU, ready to run.

    Raises:
        UserError: the folder holds none, or its weights are not those of its architecture.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a model folder (it has no config.json): give one that finalize wrote")
    try:
        wrong = _wrong_tensors(folder)
        if wrong:
            raise UserError(f"the weights in {folder} are not those of its config.json: {wrong}: restore the folder")
        model = cast(TurboVAED, TurboVAED.from_pretrained(folder, use_safetensors=True))
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"the model in {folder} cannot be loaded: {text}: give a folder that finalize wrote") from error
    model.eval()
    return model


def _wrong_tensors(folder: Path) -> str:
    """What is wrong with the names and shapes of the tensors in the weights of a folder; empty if nothing is."""
    config = TurboVAED.load_config(folder)
    if not isinstance(config, dict):
        raise ValueError("its config.json holds no settings")
    with torch.device("meta"):
        model = TurboVAED.from_config(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for path in folder.glob(f"{Path(WEIGHTS).stem}*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if not found:
        return f"{WEIGHTS} is missing or empty"
    kinds = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name]),
    }
    return ", ".join(f"{len(names)} {kind} (first {names[0]})" for kind, names in kinds.items() if names)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_package(folder: Path, name: str, package: PackageRecord) -> bool:
    """Note a package that was written into a model folder; False if the folder has no record to note it in."""
    record = read_record(folder)
    if record is None:
        return False
    record, card = record.with_package(name, package), folder / _CARD
    with disk_errors("cannot write the model card"):
        write_json(folder / _RECORD, record.to_dict())
        # What an editor has saved in another encoding, or the name of a file that is not UTF-8, stays byte for byte.
        text = (
            replace_packages(card.read_bytes().decode(errors="surrogateescape"), record)
            if card.exists()
            else render_card(record)
        )
        write_bytes(card, text.encode(errors="surrogateescape"))
    return True
