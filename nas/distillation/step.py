"""One step of a distillation: the gradient of a batch, in as many pieces as memory asks for, then the optimizer."""

import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from nas.distillation.activations import Portion, recomputing
from nas.distillation.checkpoint import update_average
from nas.distillation.feed import Feed
from nas.distillation.preparation import Prepared
from nas.distillation.schedule import average_decay, learning_rate
from nas.machine.batches import DoesNotFitError, halving, release_memory
from nas.machine.processes import Processes
from search_spaces import Decoder


class DivergedError(ValueError):
    """The loss or its gradient is not finite any more: this student cannot be trained with these settings."""


def take_step(run: Prepared, feed: Feed, processes: Processes, portion: Portion) -> tuple[Tensor, Portion]:
    """Train on the next batch.

    Args:
        run: what is trained.
        feed: what it is trained on.
        processes: those that share the batch.
        portion: how much of it to try at a time.

    Returns:
        The losses of what learns, `(learners,)`, and how much fitted into memory at a time.

    Raises:
        DivergedError: a loss or a gradient is not finite.
        DoesNotFitError: memory runs out with one sample, recomputed.
    """
    losses, portion = find_fitting_gradient(run, feed, portion)
    _add_up(run, losses, processes)
    _update(run, losses)
    run.state.step += 1
    return losses, portion


def find_fitting_gradient(run: Prepared, feed: Feed, portion: Portion) -> tuple[Tensor, Portion]:
    """`_find_gradient` with fewer samples at a time for as long as memory runs out, at last with parts recomputed.

    Raises:
        DoesNotFitError: it runs out even so.
    """
    try:
        work = partial(_find_gradient, run, feed, portion.recompute)
        losses, samples = halving(work, portion.samples, run.device)
    except DoesNotFitError:
        if portion.recompute:
            raise
        portion = Portion(run.settings.batch_size, recompute=True)
    else:
        return losses, replace(portion, samples=samples)
    # Only here, where the error is gone, nothing holds what the attempt had allocated.
    release_memory(run.device)
    return find_fitting_gradient(run, feed, portion)


def _find_gradient(run: Prepared, feed: Feed, recompute: bool, at_once: int) -> Tensor:
    """Leave in the parameters what this process adds to the gradients of the next batch; what it adds to its losses.

    The losses of a batch are means over its samples, and nothing in a student or a critic mixes them. So the gradients
    of smaller batches, each weighted by its samples, add up to that of the whole, whatever memory asks for.

    Args:
        run: what is trained.
        feed: what it is trained on.
        recompute: whether parts of the student are computed again in the backward pass.
        at_once: samples that are computed at a time.
    """
    batch = feed.batch(run.state.step)
    run.state.optimizer.zero_grad()
    totals = torch.zeros(len(run.learners()), device=run.device)
    student = run.state.modules["student"]
    assert isinstance(student, Decoder)
    with recomputing(student, run.device) if recompute else nullcontext():
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
