"""From a candidate to a finished model, one function per step: distil, judge, export, write."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from nas.evaluation.quality import evaluate, evaluate_teacher
from nas.export.package import ExportError, export_decoder, model_metadata
from nas.export.settings import ExportSettings
from nas.finalize.costs import macs_per_frame, measured_latency
from nas.finalize.distilling import Distilled, distil_in_full, remove_checkpoints
from nas.finalize.job import Job
from nas.finalize.pictures import pictures_of
from nas.machine.batches import DoesNotFitError, out_of_memory_as
from nas.machine.files import check_output, disk_errors
from nas.machine.temporary import temporary_folder
from nas.machine.versions import versions
from nas.model import TurboVAED
from nas.model.folder import check_model, is_model_folder, read_record, write_model_folder
from nas.model.record import ModelRecord, PackageRecord, TeacherRecord
from nas.study.outcomes import Outcome
from nas.study.short_distillation import count_parameters
from nas.teachers import Teacher, published_repository
from nas.terminal.console import progress, say, warn
from nas.terminal.errors import UserError
from search_spaces import Decoder

_LATENTS = 2
"""Real latents that a package is proven on, beside noise."""


def finish(console: Console, job: Job, candidate: Outcome) -> ModelRecord:
    """Make the model of a candidate; one that is already there with these settings is only read.

    Raises:
        nas.distillation.distill.DivergedError: it cannot be trained.
        nas.machine.batches.DoesNotFitError: it cannot be trained or judged in the memory of the device.
        UserError: the disk does not take it, or what is there is damaged.
    """
    folder, record = model_folder(job, candidate), finished_model(job, candidate)
    if record is None:
        job.processes.wait()  # all have seen that nothing is there before something is
        with out_of_memory_as(DoesNotFitError(f"{job.device.type} is out of memory")):
            result = distil_in_full(console, job, candidate)
            record = judge(console, job, candidate, result)
        model = TurboVAED(architecture=candidate.config.to_dict(), teacher=job.teacher.name)
        model.decoder.load_state_dict(result.decoder.state_dict())
        pictures = pictures_of(result.decoder, job.unseen, record.evaluation, job.device)
        with _work_folder(job.out) as work:
            package, record = export_package(console, job, result.decoder, record, work)
            record = write_model_folder(folder, model, record, package, pictures)
    remove_checkpoints(job, candidate)
    say(console, "saved", str(folder))
    return record


def assist(console: Console, job: Job, candidate: Outcome) -> None:
    """What every process but the first does for a model: distil along.

    Raises:
        nas.distillation.distill.DivergedError: it cannot be trained.
        UserError: as for `finish`; or another process has ended.
    """
    if finished_model(job, candidate) is None:
        job.processes.wait()
        distil_in_full(console, job, candidate)


def check_out(out: Path) -> None:
    """Refuse a folder that models cannot be written to, before any work is done.

    Raises:
        UserError: nothing can be written there, or it is inside a model or a package.
    """
    doing = f"cannot write models to {out}"
    check_output(out, doing)
    inside = next((place for place in (out.absolute(), *out.absolute().parents) if is_model_folder(place)), None)
    if inside is not None:
        raise UserError(f"{doing}: {inside} is itself a model: choose another --out")


def model_folder(job: Job, candidate: Outcome) -> Path:
    """Where the model of a candidate goes: other settings or targets make another model, in another folder."""
    made_from = json.dumps([job.distillation(), job.unseen.key], sort_keys=True)
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:8]
    return job.out / f"{job.teacher.name}-{candidate.config.digest()}-{job.steps}-{digest}"


def finished_model(job: Job, candidate: Outcome) -> ModelRecord | None:
    """What is known of the model of a candidate if it is already there, whole; None if nothing is there.

    Raises:
        UserError: something else is there, or the model is damaged.
    """
    folder = model_folder(job, candidate)
    with disk_errors(f"cannot look into {folder}"):
        there, record = os.path.lexists(folder), read_record(folder)
    if record is None and not there:
        return None
    if record is None or not record.is_made_from(job.distillation(), job.unseen.key):
        raise UserError(f"{folder} is not the model that belongs there: move it away or choose another --out")
    check_model(folder, record)
    return record


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Where a package waits until its model folder is written."""
    with disk_errors(f"cannot write to {out}"):
        out.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out) as work:
            yield work


def judge(console: Console, job: Job, candidate: Outcome, result: Distilled) -> ModelRecord:
    """How fast and how good a distilled decoder is, and everything that it was made from."""
    decoder = result.decoder.eval()
    measured = measured_latency(console, job, decoder, "of the student, here")
    with progress(console, "evaluation") as advance, torch.inference_mode():
        evaluation = evaluate(decoder, job.unseen, device=job.device, progress=advance)
    run = job.run.settings
    return ModelRecord(
        teacher=_teacher_record(job.teacher),
        architecture=candidate.config.digest(),
        summary=candidate.config.summary(),
        temporal_mode=candidate.config.temporal_mode,
        parameters=count_parameters(decoder),
        macs_per_frame=macs_per_frame(job, decoder),
        budget=f"{run.describe_constraints()} at {job.workload.describe()}",
        device=run.device,
        latency_measured=measured,
        latency_predicted=job.phone.latency(decoder, job.teacher.spec, job.workload),
        distillation=job.distillation(),
        unseen=job.unseen.key,
        clips=job.clips,
        search_score_db=candidate.score,
        curve=result.curve,
        evaluation=evaluation,
        teacher_evaluation=evaluate_teacher(job.unseen),
        versions=versions(),
        packages={},
    )


def export_package(
    console: Console, job: Job, decoder: Decoder, record: ModelRecord, folder: Path
) -> tuple[Path | None, ModelRecord]:
    """A Core ML package of the timed decode, noted in the record; if there can be none, None and the reason there."""
    load = job.workload
    settings = ExportSettings(load.height, load.width, load.num_frames)
    path = folder / settings.file_name()
    metadata = model_metadata(decoder, job.teacher.name, record.evaluation.to_dict())
    unseen = job.unseen.split("test")
    # Real latents, of clips that are far apart in the order of the samples.
    samples = sorted({index * (len(unseen) - 1) // (_LATENTS - 1) for index in range(_LATENTS)})
    latents = unseen.batch(samples).latents
    try:
        with progress(console, "Core ML", "converting and proving"):
            report = export_decoder(decoder.cpu(), settings, path, metadata=metadata, latents=latents)
    except ExportError as error:
        warn(console, f"no Core ML package: {error}")
        return None, replace(record, no_package=str(error))
    say(console, "Core ML", report.describe())
    return path, record.with_package(path.name, PackageRecord(report.describe(), report.to_dict()))


def _teacher_record(teacher: Teacher) -> TeacherRecord:
    return TeacherRecord(
        name=teacher.name,
        source=teacher.source,
        sha256=teacher.weights_hash,
        licence=teacher.licence,
        repository=published_repository(teacher.name),
        channels=teacher.spec.channels,
    )
