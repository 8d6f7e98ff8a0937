"""The only training loop: used short by the search to score a candidate, and long by finalize to make a model."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.data.targets import Samples, TargetBatch, Targets
from nas.distillation.checkpoint import TrainingState, load_checkpoint, save_checkpoint, update_average
from nas.distillation.initialise import initialise
from nas.distillation.losses import FeatureAlignment, LossWeights, frame_losses, match_taps, total_loss
from nas.distillation.schedule import average_decay, batch_indices, learning_rate
from nas.distillation.settings import DistillSettings, Precision
from nas.metrics import VIDEO_RANGE, lpips_network, lpips_off, psnr
from search_spaces import Decoder

_STATISTICS_SAMPLES = 8
"""Samples of the train split that the teacher's features are normalised by."""


class DivergedError(ValueError):
    """The loss or its gradient is no finite number any more: this student cannot be trained with these settings."""


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
    report: Callable[[Progress], None] | None = None,
    fresh: bool = True,
) -> DistillResult:
    """Train a student in place to give the teacher's frames for the same latents.

    On a CPU the same decoder, targets and settings give the same weights, also if a run was cut off and resumed.

    Args:
        decoder: the student; it moves to `device`.
        targets: latents, the teacher's frames and features for them; trained on "train", scored on "score".
        settings: how.
        device: where.
        checkpoint: file to save to and, if it is there, to resume from.
        report: called after every step; what it raises ends the run and leaves the last checkpoint valid.
        fresh: the decoder has its first weights, so the latents' statistics are folded into its stem and its shortcut
            is fitted. False to go on from weights that were trained.

    Raises:
        DivergedError: the loss or the gradient is not finite.
        UserError: the checkpoint is damaged or of another distillation; the disk does not take it.
    """
    device = torch.device(device)
    for name in ("train", "score"):
        if len(targets.split(name)) == 0:
            raise ValueError(f"there is nothing to distil from: the {name} split of the targets is empty")
    run = _start(decoder, targets, settings, device, checkpoint, fresh)
    state, train, held_out = run.state, targets.split("train"), targets.split("score")
    clock = time.monotonic() - state.seconds
    while state.step < settings.steps:
        samples = batch_indices(len(train), settings.batch_size, settings.seed, state.step)
        loss = run.loss(train.batch(samples, device))
        _update(state, loss, settings)
        state.step += 1
        last = state.step == settings.steps
        score = None
        if last or state.step % settings.report_every == 0:
            score = score_student(state.modules["average"], held_out, settings.batch_size, device)
            state.curve.append((state.step, score))
        state.seconds = time.monotonic() - clock
        if checkpoint is not None and (last or state.step % settings.checkpoint_every == 0):
            save_checkpoint(checkpoint, state, run.identity)
        if report is not None:
            report(Progress(state.step, settings.steps, float(loss.detach()), score))
    decoder.load_state_dict(state.modules["average"].state_dict())
    return DistillResult(
        decoder=decoder.eval(),
        score=state.curve[-1][1],
        curve=state.curve,
        seconds=state.seconds,
        taps=run.taps,
        taps_left_out=run.taps_left_out,
        perceptual=_perceptual_off(settings) or "on",
    )


@torch.inference_mode()
def score_student(student: nn.Module, split: Samples, batch_size: int, device: torch.device) -> float:
    """PSNR in dB of the student's frames against the teacher's, mean over the samples of a split.

    Both are clamped to [-1, 1], as they are when they are shown. Computed in float32 whatever the training used.

    Raises:
        DivergedError: a frame is not finite.
    """
    scores = []
    for first in range(0, len(split), batch_size):
        batch = split.batch(list(range(first, min(first + batch_size, len(split)))), device)
        frames = student(batch.latents)
        if not torch.isfinite(frames).all():
            raise DivergedError("the student's frames are not finite: lower the learning rate")
        scores.append(psnr(frames.clamp(-1, 1), batch.frames.clamp(-1, 1), VIDEO_RANGE))
    return float(torch.cat(scores).mean())


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Number format of the convolutions: what `precision` says, or for "auto" the fastest that the device has.

    float16 (with loss scaling) only on GPUs without bfloat16; on a CPU bfloat16 needs AMX or AVX512-BF16 to pay.
    """
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    units = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return torch.bfloat16 if units.get("amx_bf16") or units.get("avx512_bf16") else torch.float32


@dataclass(frozen=True)
class _Run:
    """What one call works with."""

    state: TrainingState
    loss: Callable[[TargetBatch], Tensor]
    identity: dict[str, Any]
    """What has to be equal for a checkpoint to be continued."""
    taps: tuple[str, ...]
    taps_left_out: tuple[str, ...]


def _start(
    decoder: Decoder,
    targets: Targets,
    settings: DistillSettings,
    device: torch.device,
    checkpoint: Path | None,
    fresh: bool,
) -> _Run:
    """Everything before the first step: heads, optimizer, and the checkpoint if there is one."""
    decoder.to(device).train()
    resuming = checkpoint is not None and checkpoint.exists()
    if fresh and not resuming:
        initialise(decoder, targets.split("train"))
    stages, left_out = match_taps(decoder, targets.taps if settings.feature_weight else {})
    alignment = _alignment(decoder, targets, stages, settings.seed, device)
    modules = {"student": decoder, "average": copy.deepcopy(decoder).eval(), "alignment": alignment}
    optimizer = torch.optim.AdamW(
        _parameter_groups(decoder, alignment, settings),
        settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    dtype = training_dtype(settings.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    state = TrainingState(modules, optimizer, scaler)
    identity = _identity(decoder, targets, settings)
    if checkpoint is not None and resuming:
        load_checkpoint(checkpoint, state, identity)
    loss = _loss_function(decoder, alignment, settings, device, dtype)
    return _Run(state, loss, identity, tuple(stages), left_out)


def _parameter_groups(decoder: Decoder, alignment: FeatureAlignment, settings: DistillSettings) -> list[dict[str, Any]]:
    """Parameters with what their learning rate is multiplied by: a fitted shortcut needs no more than polish."""
    fitted = [] if decoder.shortcut is None else list(decoder.shortcut.parameters())
    known = {id(parameter) for parameter in fitted}
    fresh = [parameter for parameter in decoder.parameters() if id(parameter) not in known]
    groups = [{"params": [*fresh, *alignment.parameters()], "rate_factor": 1.0}]
    return [*groups, {"params": fitted, "rate_factor": settings.shortcut_rate_factor}] if fitted else groups


def _alignment(
    decoder: Decoder, targets: Targets, stages: dict[str, int], seed: int, device: torch.device
) -> FeatureAlignment:
    """Projection heads with weights that depend on the seed alone."""
    train = targets.split("train")
    samples = train.batch(list(range(min(_STATISTICS_SAMPLES, len(train)))), device).features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FeatureAlignment(decoder, stages, samples).to(device)


def _loss_function(
    decoder: Decoder,
    alignment: FeatureAlignment,
    settings: DistillSettings,
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[TargetBatch], Tensor]:
    """The loss of a batch, a scalar."""
    perceptual = None if _perceptual_off(settings) else lpips_network("vgg").to(device)
    weights = LossWeights(1.0, settings.truth_weight, settings.feature_weight, settings.perceptual_weight)
    tapped = sorted(set(alignment.stages.values()))

    def loss(batch: TargetBatch) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            frames, features = decoder.features(batch.latents, tapped)
            projected = alignment.project(features)
        parts = frame_losses(frames, batch.frames, batch.truth, weights, perceptual)
        if projected:
            parts["feature"] = alignment.loss(projected, batch.features)
        return total_loss(parts, weights)

    return loss


def _update(state: TrainingState, loss: Tensor, settings: DistillSettings) -> None:
    """One step of the optimizer and of the moving average; DivergedError if it would spoil the weights."""
    optimizer, scaler = state.optimizer, state.scaler
    rate = learning_rate(state.step, settings.steps, settings.learning_rate, settings.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    optimizer.zero_grad()
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
    # With a loss scale an infinite gradient is expected now and then: the scaler leaves that step out.
    for name, value in {
        "loss": loss.detach(),
        **({} if scaler.is_enabled() else {"norm of the gradient": norm}),
    }.items():
        if not math.isfinite(float(value)):
            raise DivergedError(f"the {name} is {float(value)} at step {state.step}: lower the learning rate")
    scaler.step(optimizer)
    scaler.update()
    decay = average_decay(state.step, settings.ema_decay)
    update_average(state.modules["average"], state.modules["student"], decay)


def _perceptual_off(settings: DistillSettings) -> str:
    return lpips_off("vgg") if settings.perceptual_weight else "LPIPS off: its weight is 0"


def _identity(decoder: Decoder, targets: Targets, settings: DistillSettings) -> dict[str, Any]:
    """What has to be equal for a checkpoint to be continued."""
    identity = settings.identity() | {"architecture": decoder.config.digest(), "targets": targets.key}
    return identity | {"perceptual": _perceptual_off(settings) == ""}
