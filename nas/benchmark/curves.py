"""Distilling every decoder of the sample in full: side by side, one thread each, and resumed where it was cut off."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from nas.benchmark.sample import Entry
from nas.benchmark.table import Curve, read_curve
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.splits import open_clips
from nas.data.targets import Targets
from nas.distillation.distill import DivergedError, Progress, distill, score_student
from nas.distillation.initialise import build, initialise
from nas.distillation.settings import DistillSettings
from nas.machine.files import disk_errors, read_json, write_json
from nas.teachers import load_teacher
from search_spaces import DecoderConfig

CPU = torch.device("cpu")
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


def list_jobs(
    sample: Sequence[Entry],
    settings: DistillSettings,
    seeds: int,
    teacher: str,
    crops: TargetSettings,
    folder: Path,
) -> list[Job]:
    """Every decoder with the first seed, then every third one with the others."""
    jobs: list[Job] = []
    for seed in range(seeds):
        for entry in sample[:: 1 if seed == 0 else 3]:
            file = folder / f"{entry.config.digest()}-{seed}.json"
            each = replace(settings, seed=seed)
            jobs.append(Job(entry.config, each, teacher, crops, crops.num_frames, file))
    return jobs


def run_jobs(jobs: Sequence[Job], workers: int, progress: Callable[[int, int], None]) -> list[Curve]:
    """The curve of every job: read where it is known, else made now.

    Args:
        jobs: what to distil.
        workers: processes side by side.
        progress: called with the number of curves that are known and of all.
    """
    missing = [job for job in jobs if not job.file.exists()]
    progress(len(jobs) - len(missing), len(jobs))
    # Threads that wait for each other spin: one thread each is what makes processes side by side fast.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare) as pool:
        waiting = [pool.submit(run_job, job) for job in missing]
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                progress(len(jobs) - len(missing) + done, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [read_curve(read_json(job.file)) for job in jobs]


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
    except DivergedError as error:
        failure = str(error)
    digest = job.architecture.digest()
    curve = Curve(digest, job.settings.seed, tuple(points), test_db, round(seconds, 1), failure)
    with disk_errors("cannot write a curve of the benchmark"):
        write_json(job.file, asdict(curve))


def _targets(job: Job) -> Targets:
    """Read from the cache, where they were put before."""
    return open_targets(load_teacher(job.teacher), open_clips(None, job.num_frames), job.crops)


def _prepare() -> None:
    """What every process does first."""
    os.nice(_NICENESS)
    torch.set_num_threads(1)
