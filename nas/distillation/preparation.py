"""Everything before the first step of a distillation: first weights, projection heads, loss, optimizer, checkpoint."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.data.targets import TargetBatch, Targets
from nas.distillation.activations import Portion, kept_bytes
from nas.distillation.checkpoint import TrainingState, load_checkpoint
from nas.distillation.critic import CRITIC_BETAS, Critic
from nas.distillation.initialise import initialise
from nas.distillation.losses import FeatureAlignment, frame_losses, match_taps, total_loss
from nas.distillation.replay import Replay
from nas.distillation.settings import DistillSettings, Precision
from nas.distillation.training_forms import training_forms
from nas.machine.memory import memory_limit
from nas.metrics import lpips_network, lpips_off
from search_spaces import Decoder, DecoderConfig

_STATISTICS_SAMPLES = 8
"""Samples of the train split that the teacher's features are normalised by."""


@dataclass(frozen=True)
class Prepared:
    """What the training loop works with."""

    targets: Targets
    """What is trained and scored on."""
    settings: DistillSettings
    """How."""
    device: torch.device
    """Where."""
    state: TrainingState
    """Everything that changes from step to step."""
    losses: Callable[[TargetBatch, int, Sequence[int]], Iterator[Tensor]]
    """Losses of what learns, each a scalar: of the student, then of the critic if there is one.

    For a batch, the steps done before and the places of its samples in the whole batch of the step. The gradient of
    each goes to parameters of its own; where it is taken before the next is asked for, less memory is needed.
    """
    critic: Critic | None
    """What the student learns from beside the targets."""
    identity: dict[str, Any]
    """What has to be equal for a checkpoint to be continued."""
    taps: tuple[str, ...]
    """Taps of the teacher that features are aligned to."""
    taps_left_out: tuple[str, ...]
    """Taps on a grid that the student never visits."""
    portion: Portion
    """How its batches are computed at first."""

    def learners(self) -> list[list[nn.Parameter]]:
        """What learns, in the order of `losses`: the parameters of the student and its heads, those of the critic."""
        groups = [group["params"] for group in self.state.optimizer.param_groups]
        critics = [groups.pop()] if self.critic is not None else []
        return [list(chain.from_iterable(groups)), *critics]


def prepare(
    decoder: Decoder,
    targets: Targets,
    settings: DistillSettings,
    device: torch.device,
    checkpoint: Path | None,
    fresh: bool,
) -> Prepared:
    """Everything before the first step: heads, optimizer, and the checkpoint if there is one."""
    decoder.to(device).train()
    resuming = checkpoint is not None and checkpoint.exists()
    if fresh and not resuming:
        initialise(decoder, targets.split("train"))
    stages, left_out = match_taps(decoder, targets.taps if settings.feature_weight else {})
    alignment = _alignment(decoder, targets, stages, settings.seed, device)
    critic = _critic(targets, settings, device) if settings.adversarial_weight else None
    modules: dict[str, nn.Module] = {
        "student": decoder,
        "average": copy.deepcopy(decoder).eval(),
        "alignment": alignment,
        **({"critic": critic} if critic is not None else {}),
    }
    optimizer = torch.optim.AdamW(
        _parameter_groups(decoder, alignment, critic, settings),
        settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True if device.type == "cpu" else None,
    )
    dtype = training_dtype(settings.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    state = TrainingState(modules, optimizer, scaler)
    identity = _identity(decoder, targets, settings)
    if checkpoint is not None and resuming:
        load_checkpoint(checkpoint, state, identity)
    losses = _loss_functions(decoder, alignment, critic, settings, device, dtype)
    portion = _first_portion(decoder.config, targets, settings, device, dtype)
    return Prepared(targets, settings, device, state, losses, critic, identity, tuple(stages), left_out, portion)


def _first_portion(
    config: DecoderConfig, targets: Targets, settings: DistillSettings, device: torch.device, dtype: torch.dtype
) -> Portion:
    """What should fit into memory; where it does not, less is tried."""
    train = targets.split("train")
    frames, height, width = train.batch(train.some(1)).latents.shape[2:]
    kept = kept_bytes(config, (frames, height, width), dtype, device)
    return Portion.of(kept, settings.batch_size, memory_limit(device))


def _parameter_groups(
    decoder: Decoder, alignment: FeatureAlignment, critic: Critic | None, settings: DistillSettings
) -> list[dict[str, Any]]:
    """Parameters with what their learning rate is multiplied by, all for one optimizer: no step leaves any out."""
    groups = _student_groups(decoder, alignment, settings)
    if critic is None:
        return groups
    own = {"rate_factor": settings.critic_rate_factor, "betas": CRITIC_BETAS, "weight_decay": 0.0}
    return [*groups, {"params": list(critic.parameters()), **own}]


def _student_groups(decoder: Decoder, alignment: FeatureAlignment, settings: DistillSettings) -> list[dict[str, Any]]:
    """A fitted shortcut needs no more than polish."""
    fitted = [] if decoder.shortcut is None else list(decoder.shortcut.parameters())
    known = {id(parameter) for parameter in fitted}
    fresh = [parameter for parameter in decoder.parameters() if id(parameter) not in known]
    if not fitted:
        return [{"params": [*fresh, *alignment.parameters()], "rate_factor": 1.0}]
    helped = settings.helped_rate_factor
    groups = [{"params": [*fresh, *alignment.parameters()], "rate_factor": helped}]
    return [*groups, {"params": fitted, "rate_factor": helped * settings.shortcut_rate_factor}]


def _alignment(
    decoder: Decoder, targets: Targets, stages: dict[str, int], seed: int, device: torch.device
) -> FeatureAlignment:
    """Projection heads with weights that depend on the seed alone."""
    train = targets.split("train")
    samples = train.batch(train.some(_STATISTICS_SAMPLES), device).features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FeatureAlignment(decoder, stages, samples).to(device)


def _critic(targets: Targets, settings: DistillSettings, device: torch.device) -> Critic:
    """With weights that depend on the seed alone, and nothing to replay."""
    train = targets.split("train")
    shape = train.batch(train.some(1)).frames.shape[1:]
    return Critic(Replay(shape, settings.batch_size, settings.seed), settings.seed).to(device)


def _loss_functions(
    decoder: Decoder,
    alignment: FeatureAlignment,
    critic: Critic | None,
    settings: DistillSettings,
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[TargetBatch, int, Sequence[int]], Iterator[Tensor]]:
    """`Prepared.losses`."""
    perceptual = None if perceptual_off(settings) else lpips_network("vgg").to(device)
    tapped = sorted(set(alignment.stages.values()))

    def losses(batch: TargetBatch, step: int, places: Sequence[int]) -> Iterator[Tensor]:
        with training_forms(decoder, device), _computed_in(dtype, device):
            frames, features = decoder.features(batch.latents, tapped)
            projected = alignment.project(features)
        truth = batch.truth if settings.truth_weight else None
        parts = frame_losses(frames, batch.frames, truth, settings, perceptual)
        if projected:
            parts["feature"] = alignment.loss(projected, batch.features)
        real = batch.frames if settings.teacher_weight else batch.truth
        if critic is not None:
            parts["adversarial"] = critic.student_loss(frames, real)
        yield total_loss(parts, settings)
        if critic is not None:
            yield critic.own_loss(frames, real, step, places)

    return losses


def _computed_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Within it, convolutions are computed in this number format."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


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


def perceptual_off(settings: DistillSettings) -> str:
    """Why LPIPS is not part of the loss; empty if it is."""
    return lpips_off("vgg") if settings.perceptual_weight else "LPIPS off: its weight is 0"


def _identity(decoder: Decoder, targets: Targets, settings: DistillSettings) -> dict[str, Any]:
    """What has to be equal for a checkpoint to be continued."""
    identity = settings.identity() | {"architecture": decoder.config.digest(), "targets": targets.key}
    return identity | {"perceptual": perceptual_off(settings) == ""}
