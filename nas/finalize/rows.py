"""What a finished model is compared with: linear baselines and the teacher itself."""

from rich.console import Console

from nas.evaluation.baselines import linear_patches, nearest_linear_rgb
from nas.evaluation.comparison import Row
from nas.evaluation.quality import evaluate, evaluate_teacher
from nas.finalize.costs import macs_per_frame, teacher_latency
from nas.finalize.job import Job
from nas.model.record import ModelRecord


def baseline_rows(job: Job) -> list[Row]:
    """What linear maps of the latents show, without any decoder."""
    linear = {"nearest linear RGB": nearest_linear_rgb, "linear patches": linear_patches}
    return [Row(name, evaluate(fit(job.stretches[0].targets), job.unseen)) for name, fit in linear.items()]


def teacher_row(console: Console, job: Job) -> Row:
    """The teacher itself. Nothing is predicted for it: decoders of teachers are not programs that phones take."""
    return Row(
        f"teacher {job.teacher.name}",
        evaluate_teacher(job.unseen),
        parameters=job.teacher.decoder_parameters,
        macs_per_frame=macs_per_frame(job, job.teacher.skeleton_decoding()),
        measured=teacher_latency(console, job),
    )


def model_row(number: int, record: ModelRecord) -> Row:
    """A finished model; `number` is that of its trial."""
    return Row(
        f"#{number} {record.summary}",
        record.evaluation,
        parameters=record.parameters,
        macs_per_frame=record.macs_per_frame,
        measured=record.latency_measured,
        predicted=record.latency_predicted,
    )
