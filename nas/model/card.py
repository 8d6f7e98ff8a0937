"""The model card: a finished model for people, and for the hub's search."""

from collections.abc import Sequence

from nas.evaluation.results import ROWS, Quality
from nas.model.record import ModelRecord

LICENCE = "apache-2.0"
"""Licence of the models' weights and code, by the hub's name for it."""

PICTURES = "pictures"
"""Folder of a model with strips and videos of clips that it was judged on."""

_CORE_ML = "## Core ML\n"
"""Heading of the part about packages, which is the last."""


def render_card(record: ModelRecord, pictures: Sequence[str] = ()) -> str:
    """The README.md of a model folder.

    Args:
        record: what is known of the model.
        pictures: names of the files in its folder of pictures.
    """
    parts = [_front_matter(record), _introduction(record), _facts(record), _quality(record), *_complaints(record)]
    parts += [_not_measured(record), *_strips(pictures), _licence(record), *_core_ml(record)]
    return "\n".join(parts)


def replace_packages(card: str, record: ModelRecord) -> str:
    """A card with its part about Core ML as it is now; what stands before it may have been edited and stays."""
    text = card.split(_CORE_ML)[0].rstrip("\n")
    return "\n".join([text, "", *_core_ml(record)])


def _front_matter(record: ModelRecord) -> str:
    base = [f"base_model: {record.teacher.repository}"] if record.teacher.repository else []
    lines = [f"license: {LICENCE}", *base, "library_name: diffusers", "tags: [video-vae, decoder, distillation]"]
    return "\n".join(["---", *lines, "---"])


def _introduction(record: ModelRecord) -> str:
    teacher = record.teacher
    return f"""# Turbo-VAED decoder for {teacher.name}

A small decoder for the latents of `{teacher.name}` ({teacher.source}), distilled from the teacher's own decoder.
Same latents in, same number and size of frames out.

    from nas.model import TurboVAED
    vae = TurboVAED.from_pretrained("PATH OF THIS FOLDER")
    frames = vae.decode(latents).sample  # (b, {teacher.channels}, t, h, w) -> (b, 3, t', h', w') in [-1, 1]
"""


def _facts(record: ModelRecord) -> str:
    rows = {
        "architecture": f"`{record.summary}`",
        "parameters": f"{record.parameters:,}",
        "multiply-accumulates per frame": f"{record.macs_per_frame / 1e9:.1f} G",
        "latency budget": f"{record.budget} on {record.device}",
        "latency, predicted": record.latency_predicted.describe(),
        "latency, measured": record.latency_measured.describe(),
        "distilled for": f"{record.distilled_for}{_latents(record)}, by the recipe "
        f"`{record.distillation['recipe']}`: {_phases(record)}",
        "temporal mode": record.temporal_mode,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""])


def _latents(record: ModelRecord) -> str:
    """What tells latents that were trained on beside the clips from others; nothing for records without any."""
    latents = record.distillation.get("latents")
    return "" if latents is None else f" (SHA-256 {latents['sha256'][:16]})"


def _phases(record: ModelRecord) -> str:
    return ", ".join(f"{phase['name']} ({phase['steps']} steps)" for phase in record.distillation["phases"])


def _quality(record: ModelRecord) -> str:
    found = record.evaluation
    assert found.to_teacher is not None
    rows = {
        "against the teacher's frames": found.to_teacher,
        "against the video": found.to_truth,
        "the teacher against the video": record.teacher_evaluation.to_truth,
    }
    names = ", ".join(clip.name for clip in found.clips)
    return "\n".join(
        [
            f"Evaluated on {found.crops} crops of clips that neither training nor selection saw ({names}):",
            "",
            "| | PSNR | first frame | SSIM |",
            "|---|---|---|---|",
            *(_row(name, quality) for name, quality in rows.items()),
            "",
        ]
    )


def _row(name: str, quality: Quality) -> str:
    return f"| {name} | {quality.psnr:.2f} dB | {quality.psnr_first:.2f} dB | {quality.ssim:.4f} |"


def _complaints(record: ModelRecord) -> list[str]:
    """What people complain of in fast decoders, beside the teacher; nothing for records without it."""
    found, to_truth = record.evaluation.to_teacher, record.evaluation.to_truth
    teachers = record.teacher_evaluation.to_truth
    assert found is not None
    rows = {
        "sharpness: high-band energy over the teacher's": _number(found.sharpness),
        "error of the strength of detail, place by place (1: no detail at all)": _number(found.detail_error),
        "drift of the mean of R, G, B, 8-bit steps": _signed(found.colour_mean),
        "drift of the standard deviation of R, G, B, 8-bit steps": _signed(found.colour_std),
        "colour difference, mean Delta E 2000": _number(found.delta_e),
        "flicker against the video, 8-bit steps (the teacher's)": _beside(to_truth.flicker, teachers.flicker),
        "worst step between tiles, over the median (the teacher's, against the video)": _beside(
            found.tile_seams, teachers.tile_seams
        ),
        "worst step between chunks, over the median (the teacher's, against the video)": _beside(
            found.chunk_seams, teachers.chunk_seams
        ),
    }
    measured = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return ["| against the teacher's frames | |", "|---|---|", *measured, ""] if measured else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(values: tuple[float, ...] | None) -> str:
    return "" if values is None else ", ".join(f"{value:+.2f}" for value in values)


def _beside(value: float | None, teachers: float | None) -> str:
    return "" if value is None or teachers is None else f"{value:.2f} ({teachers:.2f})"


def _not_measured(record: ModelRecord) -> str:
    return f"Not measured: {', '.join(record.evaluation.not_measured())}.\n"


def _strips(pictures: Sequence[str]) -> list[str]:
    names = [name.removesuffix(".png") for name in pictures if name.endswith(".png")]
    if not names:
        return []
    shown = [f"![the {name} clip]({PICTURES}/{name}.png)" for name in names]
    rows = f"Clips by how near the model is to the teacher: {ROWS}. As videos: "
    return [*shown, "", rows + ", ".join(f"[{name}]({PICTURES}/{name}.mp4)" for name in names) + ".", ""]


def _licence(record: ModelRecord) -> str:
    return (
        "The latents, and so what this decoder is good for, are the teacher's. "
        f"Licence of the teacher: {record.teacher.licence}.\n"
    )


def _core_ml(record: ModelRecord) -> list[str]:
    if record.no_package:
        return [_CORE_ML, f"There is no package: {record.no_package}\n"]
    if not record.packages:
        return []
    lines = [f"- `{name}`: {package.summary}" for name, package in record.packages.items()]
    return [_CORE_ML, *lines, ""]
