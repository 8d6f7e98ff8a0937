"""The only training loop: used short by the search to score a candidate, and long by finalize to make a model."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.data.targets import Samples, Targets
from nas.distillation.activations import Portion
from nas.distillation.checkpoint import load_checkpoint, save_checkpoint
from nas.distillation.feed import Feed
from nas.distillation.preparation import Prepared, perceptual_off, prepare
from nas.distillation.settings import DistillSettings
from nas.distillation.step import DivergedError, take_step
from nas.distillation.training_forms import training_forms
from nas.machine.batches import in_batches
from nas.machine.processes import ALONE, Processes
from nas.metrics import VIDEO_RANGE, psnr
from search_spaces import Decoder

_SETBACK = 0.5
"""Learning rate after a setback, relative to that before."""


@dataclass(frozen=True)
class Progress:
    """Where a distillation is, after every step."""

    step: int
    """Steps done."""
    steps: int
    """Steps of the whole run."""
    loss: float
    """Loss of the last step."""
    score: float | None
    """Score in dB, every `report_every` steps and after the last one."""
    waiting: float
    """Share of the time for which training waited for its data, 0 to 1."""


@dataclass(frozen=True)
class DistillResult:
    """A trained student."""

    decoder: Decoder
    """The decoder that was passed, with the averaged weights, in evaluation mode."""
    score: float
    """PSNR in dB against the teacher on the score split, frames in [-1, 1], mean over samples."""
    curve: list[tuple[int, float]]
    """(steps done, score) on the way, the last one included."""
    seconds: float
    """Time it took, over all processes that worked on it."""
    waiting: float
    """Share of that for which training waited for its data, 0 to 1, since it was begun or resumed."""
    taps: tuple[str, ...]
    """Taps of the teacher that features were aligned to."""
    taps_left_out: tuple[str, ...]
    """Taps on a grid that the student never visits."""
    portion: Portion
    """How much of a batch fitted into memory at a time, in the end."""
    perceptual: str
    """"on", or why LPIPS is not part of the loss."""


def distill(
    decoder: Decoder,
    targets: Targets,
    settings: DistillSettings,
    *,
    device: torch.device | str,
    checkpoint: Path | None = None,
    until: int | None = None,
    report: Callable[[Progress], None] | None = None,
    fresh: bool = True,
    setback: Callable[[str], None] | None = None,
    processes: Processes = ALONE,
) -> DistillResult:
    """Train a student in place to give the teacher's frames for the same latents.

    On a CPU the same decoder, targets and settings give the same weights, also if a run was cut off and resumed.

    Args:
        decoder: the student; it moves to `device`.
        targets: latents, the teacher's frames and features for them; trained on "train", scored on "score".
        settings, device: how, and where.
        checkpoint: file to save to and, if it is there, to resume from.
        until: step at which to stop with a checkpoint, but for the last of `settings.steps`, whose schedule holds.
        report: called after every step; what it raises ends the run and leaves the last checkpoint valid.
        fresh: the decoder has its first weights, so its stem and shortcut are fitted. False if it was trained.
        setback: told why when a run that diverges goes back to its last checkpoint, once, and on at half the learning
            rate. None: that ends the run.
        processes: those that share the samples of each step; all have to call this alike, and the first one saves.

    Raises:
        DivergedError, DoesNotFitError: the loss or the gradient is not finite; memory runs out with a single sample.
        UserError: the checkpoint is damaged or of another distillation; the disk does not take it.
    """
    _refuse_empty(targets)
    run = prepare(decoder, targets, settings, torch.device(device), checkpoint, fresh)
    waiting, portion = _train(run, checkpoint, until, report, setback, processes)
    state = run.state
    decoder.load_state_dict(state.modules["average"].state_dict())
    return DistillResult(
        decoder=decoder.eval(),
        score=state.curve[-1][1],
        curve=state.curve,
        seconds=state.seconds,
        waiting=waiting,
        taps=run.taps,
        taps_left_out=run.taps_left_out,
        portion=portion,
        perceptual=perceptual_off(settings) or "on",
    )


def _train(
    run: Prepared,
    checkpoint: Path | None,
    until: int | None,
    report: Callable[[Progress], None] | None,
    setback: Callable[[str], None] | None,
    processes: Processes,
) -> tuple[float, Portion]:
    """All steps that are left; the share of the time that it waited for data, and how much fitted into memory.

    The arguments are those of `distill`.
    """
    processes.wait()  # all have looked for the checkpoint before there is another
    state, portion = run.state, run.portion
    clock = time.monotonic() - state.seconds
    end = run.settings.steps if until is None else min(until, run.settings.steps)
    if setback is not None and state.step == 0:
        _save(checkpoint, run, processes)
    samples, seed = run.targets.split("train"), run.settings.seed
    with closing(Feed(samples, run.settings.batch_size, seed, end, processes, run.device)) as feed:
        while state.step < end:
            try:
                portion, progress = _advance(run, feed, processes, portion, end)
            except DivergedError as error:
                if checkpoint is None or setback is None or state.rate < 1:
                    raise
                _go_back(checkpoint, run, processes)
                setback(f"{error}: going on from step {state.step} at half the rate")
                continue
            state.seconds = time.monotonic() - clock
            whole = until is not None and state.step == run.settings.steps
            if not whole and (state.step == end or state.step % run.settings.checkpoint_every == 0):
                _save(checkpoint, run, processes)
            if report is not None:
                report(progress)
        return feed.waiting, portion


def _advance(run: Prepared, feed: Feed, processes: Processes, portion: Portion, end: int) -> tuple[Portion, Progress]:
    """One step, and a score where one is due; how samples fit into memory, and where the run is."""
    state, settings = run.state, run.settings
    losses, portion = take_step(run, feed, processes, portion)
    score = None
    if state.step == end or state.step % settings.report_every == 0:
        held_out = run.targets.split("score")
        score = score_student(state.modules["average"], held_out, settings.batch_size, run.device, processes)
        state.curve.append((state.step, score))
    return portion, Progress(state.step, settings.steps, float(losses[0]), score, feed.waiting)


def _refuse_empty(targets: Targets) -> None:
    for name in ("train", "score"):
        if len(targets.split(name)) == 0:
            raise ValueError(f"there is nothing to distil from: the {name} split of the targets is empty")


@torch.inference_mode()
def score_student(
    student: nn.Module, split: Samples, batch_size: int, device: torch.device, processes: Processes = ALONE
) -> float:
    """PSNR in dB of the student's frames against the teacher's, mean over the samples of a split.

    Both are clamped to [-1, 1], as they are when they are shown. Computed in float32 whatever the training used.

    Args:
        student: latents -> frames; on `device`.
        split: what it is scored on.
        batch_size: samples at a time, or fewer where memory runs out.
        device: where.
        processes: those that share the samples.

    Raises:
        DivergedError: a frame is not finite.
        DoesNotFitError: memory runs out with one sample at a time.
    """

    mine = processes.share(range(len(split)))

    def score(places: list[int]) -> Tensor:
        batch = split.batch([mine[place] for place in places], device)
        with training_forms(student, device):
            frames = student(batch.latents)
        if not torch.isfinite(frames).all():
            return torch.full((len(places),), math.nan, device=device)
        return psnr(frames.clamp(-1, 1), batch.frames.clamp(-1, 1), VIDEO_RANGE)

    total = torch.zeros((), device=device)
    for _, found in in_batches(score, len(mine), batch_size, device):
        total += found.sum()
    processes.add_up([total])
    if not torch.isfinite(total):
        raise DivergedError("the student's frames are not finite")
    return float(total) / len(split)


def _go_back(checkpoint: Path, run: Prepared, processes: Processes) -> None:
    """To the last checkpoint, which from now on goes on at a lower rate."""
    load_checkpoint(checkpoint, run.state, run.identity)
    processes.wait()
    run.state.rate = _SETBACK
    _save(checkpoint, run, processes)


def _save(checkpoint: Path | None, run: Prepared, processes: Processes) -> None:
    if checkpoint is not None and processes.is_first:
        save_checkpoint(checkpoint, run.state, run.identity)
