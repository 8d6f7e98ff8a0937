"""Distilling every decoder of the sample in full: side by side, one thread each, and resumed where it was cut off."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

from nas.benchmark.sample import Entry
from nas.benchmark.side_by_side import run_missing
from nas.benchmark.table import Curve, CurveTable, read_curve
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.splits import open_clips
from nas.data.targets import Targets
from nas.distillation.distill import Progress, distill, score_student
from nas.distillation.initialise import build, initialise
from nas.distillation.settings import DistillSettings
from nas.distillation.step import DivergedError
from nas.machine.batches import DoesNotFitError
from nas.machine.files import disk_errors, write_json
from nas.teachers import load_teacher
from nas.workers.processes import ProcessPool
from search_spaces import DecoderConfig

CPU = torch.device("cpu")
SHORT = 10
"""Length of a full distillation relative to that of the short one."""
_NICENESS = 15
"""Priority of the distillations: whoever uses the machine comes first."""


@dataclass(frozen=True)
class Job:
    """One distillation of the benchmark."""

    architecture: DecoderConfig
    """The decoder."""
    settings: DistillSettings
    """How it is distilled; its seed tells the distillations of a decoder apart."""
    teacher: str
    """Name of the teacher; its targets have been computed before."""
    crops: TargetSettings
    """What it is trained, scored and tested on."""
    num_frames: int
    """Frames that a clip must have."""
    file: Path
    """Where the curve goes."""

    def __call__(self) -> None:
        """Distil it and write its curve."""
        run_job(self)


def list_jobs(
    sample: Sequence[Entry],
    settings: DistillSettings,
    seeds: int,
    teacher: str,
    crops: TargetSettings,
    folder: Path,
) -> list[Job]:
    """Every decoder, a short run of its own for each, then every third one with other seeds."""
    jobs: list[Job] = []

    def add(entries: Sequence[Entry], each: DistillSettings) -> None:
        for entry in entries:
            file = folder / f"{entry.config.digest()}-{each.steps}-{each.seed}.json"
            jobs.append(Job(entry.config, each, teacher, crops, crops.num_frames, file))

    add(sample, replace(settings, seed=0))
    short = max(1, settings.steps // SHORT)
    add(sample, replace(settings, seed=0, steps=short, report_every=max(1, short // 4)))
    for seed in range(1, seeds):
        add(sample[::3], replace(settings, seed=seed))
    return jobs


def restore(jobs: Sequence[Job], path: Path, targets: str) -> None:
    """Take over the curves that a table has already, so that a table which is not complete is completed.

    Args:
        jobs: what the table shall have.
        path: file of the table; nothing is done if there is none, or it is about something else.
        targets: key of the targets.
    """
    table = CurveTable.load(path) if path.exists() else None
    if table is None or table.targets != targets:
        return
    known = {(curve.digest, curve.steps, curve.seed): curve for curve in table.curves}
    for job in jobs:
        curve = known.get((job.architecture.digest(), job.settings.steps, job.settings.seed))
        # A table is of one kind of distillation, of several lengths and seeds.
        same = table.distillation.items() <= (job.settings.identity() | {"steps": table.distillation["steps"]}).items()
        if same and curve is not None and not job.file.exists():
            with disk_errors("cannot write a curve of the benchmark"):
                write_json(job.file, asdict(curve))


def run_jobs(jobs: Sequence[Job], workers: int, progress: Callable[[int, int], None]) -> list[Curve]:
    """The curve of every job: read where it is known, else made now.

    Args:
        jobs: what to distil.
        workers: processes side by side.
        progress: called with the number of curves that are known and of all.
    """
    with closing(ProcessPool(workers, _NICENESS)) as pool:
        run_missing(jobs, pool, progress)
    return [read_curve(job.file) for job in jobs]


def run_job(job: Job) -> None:
    """Distil one decoder and write its curve."""
    targets = _targets(job)
    decoder = build(job.architecture, job.settings.seed)
    initialise(decoder, targets.split("train"))
    split, batch = targets.split("score"), job.settings.batch_size
    points = [(0, score_student(decoder.eval(), split, batch, CPU))]

    def report(state: Progress) -> None:
        if state.score is not None:
            points.append((state.step, state.score))

    seconds, test_db, failure = 0.0, points[0][1], ""
    try:
        # Initialised above, so that what it shows before the first step is known.
        result = distill(decoder, targets, job.settings, device=CPU, report=report, fresh=False)
        seconds = result.seconds
        test_db = score_student(result.decoder, targets.split("test"), batch, CPU)
    except (DivergedError, DoesNotFitError) as error:
        failure = str(error)
    digest, settings = job.architecture.digest(), job.settings
    curve = Curve(digest, settings.seed, settings.steps, tuple(points), test_db, round(seconds, 1), failure)
    with disk_errors("cannot write a curve of the benchmark"):
        write_json(job.file, asdict(curve))


@cache
def _opened(teacher: str, num_frames: int, crops: TargetSettings) -> Targets:
    """Read from the cache, where they were put before; once in each process."""
    return open_targets(load_teacher(teacher), open_clips(None, num_frames), crops)


def _targets(job: Job) -> Targets:
    return _opened(job.teacher, job.num_frames, job.crops)
