"""The full distillation of a candidate, phase by phase, each from its last checkpoint if it was cut off."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nas.data.live_samples import LiveSamples
from nas.distillation.distill import DistillResult, Progress, distill
from nas.distillation.initialise import build
from nas.finalize.job import Job, Stretch
from nas.machine.batches import DoesNotFitError
from nas.machine.files import disk_errors
from nas.machine.memory import peak_memory
from nas.study.outcomes import Outcome
from nas.terminal.console import Advance, format_bytes, format_seconds, progress, say, warn
from nas.terminal.errors import UserError
from search_spaces import Decoder


@dataclass(frozen=True)
class Distilled:
    """A decoder that has gone through all phases."""

    decoder: Decoder
    """The student with its averaged weights, in evaluation mode."""
    curve: tuple[tuple[int, float], ...]
    """Steps done since the first phase began, and score in dB on the crops of the phase."""


def distil_in_full(console: Console, job: Job, candidate: Outcome) -> Distilled:
    """Train the decoder of a candidate from its first weights, or from where that was cut off.

    A run that diverges goes back to its last checkpoint, once in each phase, and on at half the rate.

    Raises:
        nas.distillation.distill.DivergedError: it diverges again.
        nas.machine.batches.DoesNotFitError: memory runs out with a single sample.
        UserError: a checkpoint is damaged, or the disk does not take it.
    """
    decoder = build(candidate.config, job.stretches[0].settings.seed)
    done, seconds, waited, curve = 0, 0.0, 0.0, []
    for index, (stretch, checkpoint) in enumerate(zip(job.stretches, _checkpoints(job, candidate), strict=True)):
        with progress(console, "phase", stretch.name) as advance, _together(job):
            result = distill(
                decoder,
                stretch.targets,
                stretch.settings,
                device=job.device,
                checkpoint=checkpoint,
                report=_reporter(advance, stretch, done, job),
                fresh=index == 0,
                setback=lambda why: warn(console, why),
                processes=job.processes,
            )
        for line in _afterwards(stretch, result):
            warn(console, line)
        curve += [(done + step, score) for step, score in result.curve]
        done, seconds = done + stretch.settings.steps, seconds + result.seconds
        waited += result.waiting * result.seconds
    say(console, "distilled", f"{done} steps in {format_seconds(seconds)}, {waited / seconds:.0%} waiting for data")
    return Distilled(decoder, tuple(curve))


@contextmanager
def _together(job: Job) -> Iterator[None]:
    """Within it, of several processes one that has too little memory ends the job: the others cannot go on alone."""
    try:
        yield
    except DoesNotFitError as error:
        if job.processes.count == 1:
            raise
        raise UserError(f"process {job.processes.rank}: {error}: finish smaller candidates (--front)") from error


def remove_checkpoints(job: Job, candidate: Outcome) -> None:
    """Remove what is only needed until a model is finished.

    Raises:
        UserError: the disk does not let go of it.
    """
    with disk_errors("cannot remove the checkpoints of a finished model"):
        for checkpoint in _checkpoints(job, candidate):
            checkpoint.unlink(missing_ok=True)


def _checkpoints(job: Job, candidate: Outcome) -> list[Path]:
    """A file for each phase; its name stands for all that led up to it, too."""
    found = []
    for count in range(1, len(job.stretches) + 1):
        made_from = json.dumps([stretch.identity() for stretch in job.stretches[:count]], sort_keys=True)
        digest = hashlib.sha256(made_from.encode()).hexdigest()[:12]
        found.append(job.run.folder / "finalize" / f"{candidate.config.digest()}-{digest}.pt")
    return found


def _afterwards(stretch: Stretch, result: DistillResult) -> list[str]:
    """What was not as asked for in a phase."""
    found = []
    if stretch.settings.perceptual_weight and result.perceptual != "on":
        found.append(f"the phase '{stretch.name}' went without it: {result.perceptual}")
    if (portion := result.portion).recompute or portion.samples < stretch.settings.batch_size:
        twice = ", and parts of the student twice" if portion.recompute else ""
        found.append(
            f"the phase '{stretch.name}' computed {portion.samples} of {stretch.settings.batch_size} samples at a "
            f"time{twice}: memory is too small for more"
        )
    train = stretch.targets.split("train")
    return found + (train.notes() if isinstance(train, LiveSamples) else [])


def _reporter(advance: Advance, stretch: Stretch, done: int, job: Job) -> Callable[[Progress], None]:
    """Shows where a phase is and how fast it goes; `done`: steps before it."""
    begun: Progress | None = None
    start = 0.0

    def report(state: Progress) -> None:
        nonlocal begun, start
        if begun is None:
            begun, start = state, time.monotonic()
            advance(done + state.step, job.steps)
            return
        rate = (state.step - begun.step) * stretch.settings.batch_size / max(time.monotonic() - start, 1e-9)
        memory = format_bytes(peak_memory(job.device))
        note = f"{rate:.1f} samples/s, {state.waiting:.0%} waiting for data, {memory}"
        advance(done + state.step, job.steps, note)

    return report
