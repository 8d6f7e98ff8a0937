"""What students are trained and judged on, and how: short in a search, in full by finalize, less without a GPU."""

import torch

from nas.data.settings import TargetSettings
from nas.distillation.settings import DistillSettings
from nas.teachers import Teacher


def training_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.device("cuda" if _gpu() else "cpu")


def short_steps() -> int:
    """Default length of the short distillation of a candidate."""
    return 600 if _gpu() else 120


def full_steps() -> int:
    """Default length of the full distillation of a finished model."""
    return 30_000 if _gpu() else 1200


def search_seconds() -> float | None:
    """Default time after which a search starts no new candidate; None: no limit."""
    return None if _gpu() else 420.0


def distill_settings(steps: int, seed: int) -> DistillSettings:
    """Settings of a distillation of this length, short or full: scored six times, saved twenty times on the way.

    On a CPU the time of a step grows with its samples, and more steps are worth more than larger ones.
    """
    return DistillSettings(
        steps=steps,
        seed=seed,
        batch_size=8 if _gpu() else 1,
        report_every=max(1, steps // 6),
        checkpoint_every=max(10, steps // 20),
    )


def short_targets(teacher: Teacher) -> TargetSettings:
    """What candidates are trained and scored on.

    Three latent frames are the least at which a causal decoder is in its steady state. The features are those that the
    paper aligns: the middle and the first up block.
    """
    return TargetSettings(
        crop=_crop(teacher, 128 if _gpu() else 64),
        num_frames=teacher.spec.num_frames(5 if _gpu() else 4),
        train_crops=48 if _gpu() else 8,
        score_crops=8 if _gpu() else 3,
        test_crops=0,
        taps=teacher.tap_names[:2],
    )


def full_targets(teacher: Teacher) -> TargetSettings:
    """What finished models are trained on: larger or longer crops than in the search, and more of them."""
    return TargetSettings(
        crop=_crop(teacher, 256 if _gpu() else 64),
        num_frames=teacher.spec.num_frames(5),
        train_crops=48 if _gpu() else 16,
        score_crops=8 if _gpu() else 3,
        test_crops=0,
        taps=teacher.tap_names[:2],
    )


def evaluation_targets(teacher: Teacher) -> TargetSettings:
    """What finished models are judged on: clips that neither training nor selection saw, larger crops."""
    return TargetSettings(
        crop=_crop(teacher, 256 if _gpu() else 128),
        num_frames=teacher.spec.num_frames(5),
        train_crops=0,
        score_crops=0,
        test_crops=4 if _gpu() else 2,
        taps=(),
    )


def frames_per_clip(teacher: Teacher) -> int:
    """Frames that a clip must have: one number for search and finalize, so that both split the clips alike."""
    return max(settings(teacher).num_frames for settings in (short_targets, full_targets, evaluation_targets))


def _crop(teacher: Teacher, usual: int) -> int:
    """Pixels; at 32x compression more than usual, so that there are four latents in a row at least."""
    return max(usual, 4 * teacher.spec.spatial)


def _gpu() -> bool:
    return torch.cuda.is_available()
