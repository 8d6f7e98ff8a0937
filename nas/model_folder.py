"""The model folder: what a search ends in, and what is published.

config.json, diffusion_pytorch_model.safetensors    for `TurboVAED.from_pretrained`
evaluation.json                                     all numbers
README.md                                           the model card
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from nas.files import disk_errors, read_json, write_bytes, write_json
from nas.model import TurboVAED

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


def write_model_folder(folder: Path, model: TurboVAED, numbers: dict[str, Any], card: dict[str, Any]) -> None:
    """Write all files, then move the whole folder into place: it is there complete, or not at all.

    Args:
        folder: where to; replaced if it exists.
        model: the student.
        numbers: for evaluation.json, JSON primitives.
        card: what the model card is filled with.
    """
    with disk_errors("cannot write the model folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            model.save_pretrained(work)
            write_json(work / "evaluation.json", numbers)
            write_bytes(work / "README.md", _CARD.format(**card).encode())
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
