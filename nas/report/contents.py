"""Everything that is on the page, as plain values: JSON primitives."""

import shlex
from collections import Counter
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.evaluation.results import ROWS
from nas.machine.versions import versions
from nas.model.folder import is_model_folder, read_record
from nas.model.record import ModelRecord
from nas.report.decoders import WORDS, describe_decoders
from nas.report.importance import importance_of_choices
from nas.report.pictures import pictures_of_models
from nas.study.remeasure import latest_measurements
from nas.study.run import Run
from nas.study.settings import command_arguments
from nas.study.sharing import study_to_read
from nas.study.study import find_study

if TYPE_CHECKING:
    import optuna

_NO_STUDY = "there is no study yet: targets come first"


def page_contents(run: Run, models: Path, study: "optuna.Study | None" = None) -> dict[str, Any]:
    """What is known of a run now, whether or not it is worked on; it is only read.

    Args:
        run: the run.
        models: folder of its finished models, which need not be there.
        study: its study where it is open already; by default it is opened to be read.

    Raises:
        UserError: its study or a model is damaged.
    """
    settings, finished = run.settings, _finished(models)
    device, measured = latest_measurements(run)
    decoders: list[dict[str, Any]] = []
    importance: list[tuple[str, float]] = []
    why_not = _NO_STUDY
    if study is not None or run.storage or find_study(run.storage_url) is not None:
        with study_to_read(run) if study is None else nullcontext(study) as found:
            decoders = describe_decoders(found, measured)
            importance, why_not = importance_of_choices(found)
    return {
        "title": f"Decoders for {settings.teacher} within {settings.describe_constraints()}",
        "made": datetime.now().astimezone().isoformat(timespec="minutes"),
        "limit": settings.constraints[0].limit,
        "steps": settings.steps,
        "facts": _facts(run, decoders),
        "command": shlex.join(["python", "-m", "nas.search", *command_arguments(settings)]),
        "decoders": decoders,
        "importance": importance,
        "no_importance": why_not,
        "measured_on": device,
        "models": [_model(record) for _, record in finished],
        "rows": ROWS,
        "pictures": pictures_of_models([folder for folder, _ in finished]),
        "versions": dict(run.versions or versions()),
    }


def _facts(run: Run, decoders: list[dict[str, Any]]) -> list[tuple[str, str]]:
    settings = run.settings
    counted = Counter(each["status"] for each in decoders)
    proposals = ", ".join(f"{count} {WORDS.get(status, status)}" for status, count in counted.most_common())
    where = f"at {settings.workload.describe()} on {' and '.join(settings.devices)}"
    facts = [
        ("teacher", settings.teacher),
        ("clips", settings.clips or "embedded"),
        ("budget", f"{settings.describe_constraints()} {where}"),
        ("space", settings.space),
        ("proposals", proposals or "none"),
        ("score", f"PSNR in dB against the teacher on held-out clips after at most {settings.steps} steps"),
        ("seed", str(settings.seed)),
    ]
    return [*facts, ("latency", decoders[0]["provenance"])] if decoders else facts


def _finished(folder: Path) -> list[tuple[Path, ModelRecord]]:
    """The models of a folder with what is known of them."""
    if not folder.is_dir():
        return []
    found = [(each, read_record(each)) for each in sorted(folder.iterdir()) if is_model_folder(each)]
    return [(each, record) for each, record in found if record is not None]


def _model(record: ModelRecord) -> dict[str, Any]:
    quality, teacher = record.evaluation, record.teacher_evaluation
    return {
        "name": record.summary,
        "architecture": record.architecture,
        "parameters": record.parameters,
        "gmacs": record.macs_per_frame / 1e9,
        "predicted": record.latency_predicted.describe(),
        "predicted_ms": record.latency_predicted.ms_per_frame,
        "measured": record.latency_measured.describe(),
        "measured_ms": record.latency_measured.ms_per_frame,
        "search_db": record.search_score_db,
        "curve": [list(each) for each in record.curve],
        "distilled_for": record.distilled_for,
        "teacher_db": quality.psnr_teacher,
        "teacher_ssim": quality.ssim_teacher,
        "truth_db": quality.psnr_truth,
        "truth_ssim": quality.ssim_truth,
        "teachers_truth_db": teacher.psnr_truth,
        "complaints": _complaints(record),
        "not_measured": ", ".join(quality.not_measured()),
        "packages": sorted(record.packages),
        "no_package": record.no_package,
    }


def _complaints(record: ModelRecord) -> dict[str, float | None]:
    """What people complain of in fast decoders: against the teacher's frames, but for flicker, which is over its."""
    found, to_truth = record.evaluation.to_teacher, record.evaluation.to_truth
    assert found is not None
    teachers = record.teacher_evaluation.to_truth.flicker
    flicker = to_truth.flicker / teachers if to_truth.flicker is not None and teachers else None
    return {
        "sharpness": found.sharpness,
        "detail_error": found.detail_error,
        "delta_e": found.delta_e,
        "flicker": flicker,
        "tile_seams": found.tile_seams,
        "chunk_seams": found.chunk_seams,
        "first_db": found.psnr_first,
        "rest_db": found.psnr_rest,
    }
