"""The only training loop: used short by the search to score a candidate, and long by finalize to make a model."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.data.targets import Samples, Targets
from nas.distillation.checkpoint import TrainingState, load_checkpoint, save_checkpoint, update_average
from nas.distillation.preparation import Prepared, perceptual_off, prepare
from nas.distillation.schedule import average_decay, batch_indices, learning_rate
from nas.distillation.settings import DistillSettings
from nas.distillation.training_forms import training_forms
from nas.machine.batches import halving, in_batches
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
) -> DistillResult:
    """Train a student in place to give the teacher's frames for the same latents.

    On a CPU the same decoder, targets and settings give the same weights, also if a run was cut off and resumed.

    Args:
        decoder: the student; it moves to `device`.
        targets: latents, the teacher's frames and features for them; trained on "train", scored on "score".
        settings: how.
        device: where.
        checkpoint: file to save to and, if it is there, to resume from.
        until: step at which to stop with a checkpoint, but for the last of `settings.steps`, whose schedule holds.
        report: called after every step; what it raises ends the run and leaves the last checkpoint valid.
        fresh: the decoder has its first weights, so its stem and shortcut are fitted. False if it was trained.
        setback: told why when a run that diverges goes back to its last checkpoint, once, and on at half the learning
            rate. None: that ends the run.

    Raises:
        DivergedError, DoesNotFitError: the loss or the gradient is not finite; memory runs out with a single sample.
        UserError: the checkpoint is damaged or of another distillation; the disk does not take it.
    """
    device = torch.device(device)
    _refuse_empty(targets)
    run = prepare(decoder, targets, settings, device, checkpoint, fresh)
    state, at_once = run.state, settings.batch_size
    clock = time.monotonic() - state.seconds
    end = settings.steps if until is None else min(until, settings.steps)
    if checkpoint is not None and setback is not None and state.step == 0:
        save_checkpoint(checkpoint, state, run.identity)
    while state.step < end:
        try:
            at_once, progress = _advance(run, targets, settings, device, at_once, end)
        except DivergedError as error:
            if checkpoint is None or setback is None or state.rate < 1:
                raise
            load_checkpoint(checkpoint, state, run.identity)
            state.rate = _SETBACK
            save_checkpoint(checkpoint, state, run.identity)
            setback(f"{error}: going on from step {state.step} at half the rate")
            continue
        state.seconds = time.monotonic() - clock
        whole = until is not None and state.step == settings.steps
        due = state.step == end or state.step % settings.checkpoint_every == 0
        if checkpoint is not None and not whole and due:
            save_checkpoint(checkpoint, state, run.identity)
        if report is not None:
            report(progress)
    decoder.load_state_dict(state.modules["average"].state_dict())
    return DistillResult(
        decoder=decoder.eval(),
        score=state.curve[-1][1],
        curve=state.curve,
        seconds=state.seconds,
        taps=run.taps,
        taps_left_out=run.taps_left_out,
        perceptual=perceptual_off(settings) or "on",
    )


def _advance(
    run: Prepared, targets: Targets, settings: DistillSettings, device: torch.device, at_once: int, end: int
) -> tuple[int, Progress]:
    """One step, and a score where one is due; how many samples fit into memory at once, and where the run is."""
    state = run.state
    loss, at_once = halving(partial(_find_gradient, run, targets.split("train"), settings, device), at_once, device)
    _update(state, loss, settings)
    state.step += 1
    score = None
    if state.step == end or state.step % settings.report_every == 0:
        score = score_student(state.modules["average"], targets.split("score"), settings.batch_size, device)
        state.curve.append((state.step, score))
    return at_once, Progress(state.step, settings.steps, float(loss), score)


def _refuse_empty(targets: Targets) -> None:
    for name in ("train", "score"):
        if len(targets.split(name)) == 0:
            raise ValueError(f"there is nothing to distil from: the {name} split of the targets is empty")


@torch.inference_mode()
def score_student(student: nn.Module, split: Samples, batch_size: int, device: torch.device) -> float:
    """PSNR in dB of the student's frames against the teacher's, mean over the samples of a split.

    Both are clamped to [-1, 1], as they are when they are shown. Computed in float32 whatever the training used.

    Args:
        student: latents -> frames; on `device`.
        split: what it is scored on.
        batch_size: samples at a time, or fewer where memory runs out.
        device: where.

    Raises:
        DivergedError: a frame is not finite.
        DoesNotFitError: memory runs out with one sample at a time.
    """

    def score(indices: list[int]) -> Tensor:
        batch = split.batch(indices, device)
        with training_forms(student, device):
            frames = student(batch.latents)
        if not torch.isfinite(frames).all():
            raise DivergedError("the student's frames are not finite")
        return psnr(frames.clamp(-1, 1), batch.frames.clamp(-1, 1), VIDEO_RANGE)

    return float(torch.cat([found for _, found in in_batches(score, len(split), batch_size, device)]).mean())


def _find_gradient(
    run: Prepared, train: Samples, settings: DistillSettings, device: torch.device, at_once: int
) -> Tensor:
    """Leave the gradient of the next batch in the parameters; its loss.

    The loss of a batch is a mean over its samples, and no part of a student mixes them. So the gradients of smaller
    batches, each weighted by its samples, add up to that of the whole, whatever memory asks for.

    Args:
        run: what is trained.
        train: where the samples are from.
        settings: how.
        device: where.
        at_once: samples that are computed at a time.
    """
    indices = batch_indices(len(train), settings.batch_size, settings.seed, run.state.step)
    run.state.optimizer.zero_grad()
    losses = []
    for first in range(0, len(indices), at_once):
        some = indices[first : first + at_once]
        loss = run.loss(train.batch(some, device)) * (len(some) / len(indices))
        run.state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _update(state: TrainingState, loss: Tensor, settings: DistillSettings) -> None:
    """One step of the optimizer and of the moving average; DivergedError if it would spoil the weights.

    Args:
        state: with the gradient of the batch.
        loss: of the batch, without a gradient of its own.
        settings: how.
    """
    optimizer, scaler = state.optimizer, state.scaler
    peak, warmup = settings.learning_rate * state.rate, settings.warmup_steps
    rate = learning_rate(state.step, settings.steps, peak, warmup, settings.decay)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    scaler.unscale_(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm, foreach=True)
    # With a loss scale an infinite gradient is expected now and then: the scaler leaves that step out.
    for name, value in {
        "loss": loss,
        **({} if scaler.is_enabled() else {"norm of the gradient": norm}),
    }.items():
        if not math.isfinite(float(value)):
            raise DivergedError(f"the {name} is {float(value)} at step {state.step}")
    scaler.step(optimizer)
    scaler.update()
    decay = average_decay(state.step, settings.ema_decay)
    update_average(state.modules["average"], state.modules["student"], decay)
