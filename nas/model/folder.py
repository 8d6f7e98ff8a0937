"""The model folder: what a search ends in, and what is published.

config.json, diffusion_pytorch_model.safetensors    for `TurboVAED.from_pretrained`
evaluation.json                                     all numbers
README.md                                           the model card
*.mlpackage                                         for Core ML
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from nas.export.package import ExportReport
from nas.machine.files import disk_errors, read_json, write_bytes, write_json
from nas.model import TurboVAED
from nas.terminal.errors import UserError

_CARD = """---
library_name: diffusers
tags: [video-vae, decoder, distillation]
---
# {title}

A small decoder for the latents of `{teacher}` ({source}), distilled from the teacher's own decoder.
Same latents in, same number and size of frames out.

    from nas.model import TurboVAED
    vae = TurboVAED.from_pretrained("PATH OF THIS FOLDER")
    frames = vae.decode(latents).sample  # (b, {channels}, t, h, w) -> (b, 3, t', h', w') in [-1, 1]

| | |
|---|---|
| architecture | `{summary}` |
| parameters | {parameters:,} |
| multiply-accumulates per frame | {gmacs:.1f} G |
| latency budget | {budget} on {device} |
| latency, predicted | {predicted} |
| latency, measured | {measured} |
| distilled for | {steps} steps on {clips} |
| temporal mode | {temporal_mode} |

Evaluated on {crops} crops of clips that neither training nor selection saw ({unseen}):

| | PSNR | first frame | SSIM |
|---|---|---|---|
| against the teacher's frames | {to_teacher.psnr:.2f} dB | {to_teacher.psnr_first:.2f} dB | {to_teacher.ssim:.4f} |
| against the video | {to_truth.psnr:.2f} dB | {to_truth.psnr_first:.2f} dB | {to_truth.ssim:.4f} |
| the teacher against the video | {of_teacher.psnr:.2f} dB | {of_teacher.psnr_first:.2f} dB | {of_teacher.ssim:.4f} |

The latents, and so what this decoder is good for, are the teacher's. Licence of the teacher: {licence}.
"""

_CORE_ML = "\n## Core ML\n\n"
"""What the part of the card about packages begins with; it is the last."""


def write_model_folder(
    folder: Path, model: TurboVAED, numbers: dict[str, Any], card: dict[str, Any], package: Path | None = None
) -> None:
    """Write all files, then move the whole folder into place: it is there complete, or not at all.

    Args:
        folder: where to; replaced if it exists.
        model: the student.
        numbers: for evaluation.json, JSON primitives; "core_ml" says what there is of Core ML packages.
        card: what the model card is filled with.
        package: a Core ML package to take in, under its name.
    """
    with disk_errors("cannot write the model folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            model.save_pretrained(work)
            write_json(work / "evaluation.json", numbers)
            write_bytes(work / "README.md", (_CARD.format(**card) + _core_ml_part(numbers.get("core_ml", {}))).encode())
            if package is not None:
                shutil.move(package, work / package.name)
            work.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def read_numbers(folder: Path) -> dict[str, Any] | None:
    """What evaluation.json holds; None if the folder is not there."""
    path = folder / "evaluation.json"
    return dict(read_json(path)) if path.exists() else None


def load_model(folder: Path) -> TurboVAED:
    """The model of a folder, on the CPU, ready to run; UserError if it holds none."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no model folder (it has no config.json): give one that finalize wrote")
    try:
        model = cast(TurboVAED, TurboVAED.from_pretrained(folder, use_safetensors=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"the model in {folder} cannot be loaded: {text}: give a folder that finalize wrote") from error
    model.eval()
    return model


def evaluation_of(folder: Path) -> dict[str, Any]:
    """The model's metrics; empty where it was never evaluated."""
    return dict((read_numbers(folder) or {}).get("evaluation", {}))


def record_export(folder: Path, name: str, report: ExportReport) -> None:
    """Note a package that was written into a model folder in its evaluation.json and its model card."""
    numbers = read_numbers(folder) or {}
    known = numbers.get("core_ml", {})
    packages = {**known.get("packages", {}), name: {"summary": report.describe(), **report.to_dict()}}
    numbers["core_ml"] = {"packages": packages}
    card = folder / "README.md"
    text = card.read_text().split(_CORE_ML)[0] if card.exists() else ""
    with disk_errors("cannot write the model card"):
        write_json(folder / "evaluation.json", numbers)
        write_bytes(card, (text + _core_ml_part(numbers["core_ml"])).encode())


def _core_ml_part(core_ml: dict[str, Any]) -> str:
    """The last part of the model card; where nothing could be exported it says why."""
    if not core_ml:
        return ""
    packages = "".join(f"- `{name}`: {found['summary']}\n" for name, found in core_ml.get("packages", {}).items())
    return _CORE_ML + (packages or f"There is no package: {core_ml['error']}\n")
