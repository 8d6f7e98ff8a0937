"""The only training loop: used short by the search to score a candidate, and long by finalize to make a model."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.data.targets import Samples, Targets
from nas.distillation.checkpoint import load_checkpoint, save_checkpoint, update_average
from nas.distillation.feed import Feed
from nas.distillation.preparation import Prepared, perceptual_off, prepare
from nas.distillation.schedule import average_decay, learning_rate
from nas.distillation.settings import DistillSettings
from nas.distillation.training_forms import training_forms
from nas.machine.batches import halving, in_batches
from nas.machine.processes import ALONE, Processes
from nas.metrics import VIDEO_RANGE, psnr
from search_spaces import Decoder

_SETBACK = 0.5
"""Learning rate after a setback, relative to that before."""


class DivergedError(ValueError):
    """The loss or its gradient is not finite any more: this student cannot be trained with these settings."""


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
    waiting = _train(run, checkpoint, until, report, setback, processes)
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
        perceptual=perceptual_off(settings) or "on",
    )


def _train(
    run: Prepared,
    checkpoint: Path | None,
    until: int | None,
    report: Callable[[Progress], None] | None,
    setback: Callable[[str], None] | None,
    processes: Processes,
) -> float:
    """All steps that are left; the share of the time that it waited for data. The arguments are those of `distill`."""
    processes.wait()  # all have looked for the checkpoint before there is another
    state, at_once = run.state, run.settings.batch_size
    clock = time.monotonic() - state.seconds
    end = run.settings.steps if until is None else min(until, run.settings.steps)
    if setback is not None and state.step == 0:
        _save(checkpoint, run, processes)
    samples, seed = run.targets.split("train"), run.settings.seed
    with closing(Feed(samples, run.settings.batch_size, seed, end, processes, run.device)) as feed:
        while state.step < end:
            try:
                at_once, progress = _advance(run, feed, processes, at_once, end)
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
        return feed.waiting


def _advance(run: Prepared, feed: Feed, processes: Processes, at_once: int, end: int) -> tuple[int, Progress]:
    """One step, and a score where one is due; how many samples fit into memory at once, and where the run is."""
    state, settings = run.state, run.settings
    losses, at_once = halving(partial(_find_gradient, run, feed), at_once, run.device)
    _add_up(run, losses, processes)
    _update(run, losses)
    state.step += 1
    score = None
    if state.step == end or state.step % settings.report_every == 0:
        held_out = run.targets.split("score")
        score = score_student(state.modules["average"], held_out, settings.batch_size, run.device, processes)
        state.curve.append((state.step, score))
    return at_once, Progress(state.step, settings.steps, float(losses[0]), score, feed.waiting)


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


def _find_gradient(run: Prepared, feed: Feed, at_once: int) -> Tensor:
    """Leave in the parameters what this process adds to the gradients of the next batch; what it adds to its losses.

    The losses of a batch are means over its samples, and nothing in a student or a critic mixes them. So the gradients
    of smaller batches, each weighted by its samples, add up to that of the whole, whatever memory asks for.

    Args:
        run: what is trained.
        feed: what it is trained on.
        at_once: samples that are computed at a time.
    """
    batch = feed.batch(run.state.step)
    run.state.optimizer.zero_grad()
    totals = torch.zeros(len(run.learners()), device=run.device)
    for first in range(0, len(batch.latents), at_once):
        some, places = batch.part(first, at_once), feed.places[first : first + at_once]
        for learner, loss in enumerate(run.losses(some, run.state.step, places)):
            share = loss * (len(places) / run.settings.batch_size)
            run.state.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
            totals[learner] += share.detach()
    return totals


def _add_up(run: Prepared, losses: Tensor, processes: Processes) -> None:
    """Make the gradients and the losses those of the whole batch."""
    parameters = (parameter for learner in run.learners() for parameter in learner)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    processes.add_up([losses, *gradients])
    if run.critic is not None:
        run.critic.replay.share(run.state.step, processes)


def _go_back(checkpoint: Path, run: Prepared, processes: Processes) -> None:
    """To the last checkpoint, which from now on goes on at a lower rate."""
    load_checkpoint(checkpoint, run.state, run.identity)
    processes.wait()
    run.state.rate = _SETBACK
    _save(checkpoint, run, processes)


def _save(checkpoint: Path | None, run: Prepared, processes: Processes) -> None:
    if checkpoint is not None and processes.is_first:
        save_checkpoint(checkpoint, run.state, run.identity)


def _update(run: Prepared, losses: Tensor) -> None:
    """One step of the optimizer, for all that learns, and of the moving average; DivergedError if it would spoil them.

    Args:
        run: with the gradients of the batch.
        losses: of the batch, without a gradient of their own.
    """
    state, settings = run.state, run.settings
    optimizer, scaler = state.optimizer, state.scaler
    peak, warmup = settings.learning_rate * state.rate, settings.warmup_steps
    rate = learning_rate(state.step, settings.steps, peak, warmup, settings.decay)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    scaler.unscale_(optimizer)
    for parameters, loss, whose in zip(run.learners(), losses.tolist(), ("", " of the critic"), strict=False):
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm, foreach=True)
        # With a loss scale an infinite gradient is expected now and then: the scaler leaves that step out.
        found = {"loss": loss} if scaler.is_enabled() else {"loss": loss, "norm of the gradient": float(norm)}
        for name, value in found.items():
            if not math.isfinite(value):
                raise DivergedError(f"the {name}{whose} is {value} at step {state.step}")
    scaler.step(optimizer)
    scaler.update()
    decay = average_decay(state.step, settings.ema_decay)
    update_average(state.modules["average"], state.modules["student"], decay)
