"""The model folder: what a search ends in, and what is published.

config.json, diffusion_pytorch_model.safetensors    for `TurboVAED.from_pretrained`
evaluation.json                                     all numbers
README.md                                           the model card
*.mlpackage                                         for Core ML
"""

import shutil
import tempfile
from pathlib import Path
from typing import cast

from nas.machine.files import disk_errors, read_json, write_bytes, write_json
from nas.model.card import render_card, replace_packages
from nas.model.record import ModelRecord, PackageRecord
from nas.model.turbo_vaed import TurboVAED
from nas.terminal.errors import UserError

_RECORD, _CARD = "evaluation.json", "README.md"


def write_model_folder(folder: Path, model: TurboVAED, record: ModelRecord, package: Path | None = None) -> None:
    """Write all files, then move the whole folder into place: it is there complete, or not at all.

    Args:
        folder: where to; replaced if it exists.
        model: the student.
        record: what is known of it.
        package: a Core ML package to take in, under its name.
    """
    with disk_errors("cannot write the model folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            model.save_pretrained(work)
            write_json(work / _RECORD, record.to_dict())
            write_bytes(work / _CARD, render_card(record).encode(errors="backslashreplace"))
            if package is not None:
                shutil.move(package, work / package.name)
            work.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def read_record(folder: Path) -> ModelRecord | None:
    """What is known of the model of a folder; None if nothing is.

    Raises:
        UserError: its evaluation.json is damaged or was written by another version.
    """
    path = folder / _RECORD
    if not path.exists():
        return None
    data = read_json(path)
    try:
        return ModelRecord.from_dict(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or of another version of this program ({type(error).__name__}: {error}): "
            f"delete or move {folder}, then make the model again"
        ) from error


def load_model(folder: Path) -> TurboVAED:
    """The model of a folder, on the CPU, ready to run; UserError if it holds none."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a model folder (it has no config.json): give one that finalize wrote")
    try:
        model = cast(TurboVAED, TurboVAED.from_pretrained(folder, use_safetensors=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"the model in {folder} cannot be loaded: {text}: give a folder that finalize wrote") from error
    model.eval()
    return model


def record_package(folder: Path, name: str, package: PackageRecord) -> bool:
    """Note a package that was written into a model folder; False if the folder has no record to note it in."""
    record = read_record(folder)
    if record is None:
        return False
    record, card = record.with_package(name, package), folder / _CARD
    with disk_errors("cannot write the model card"):
        write_json(folder / _RECORD, record.to_dict())
        text = replace_packages(card.read_text(), record) if card.exists() else render_card(record)
        write_bytes(card, text.encode(errors="backslashreplace"))
    return True
