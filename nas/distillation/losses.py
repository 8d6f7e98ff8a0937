"""What a student is punished for: other frames than the teacher's, other features, a visible difference.

Axis letters: b batch, c channels, t frames, h height, w width. All losses are taken in float32.
"""

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from nas.distillation.settings import DistillSettings
from nas.teachers import Tap
from search_spaces import Decoder

_TEXTURE_SIZE = 8
"""Height and width in pixels of a place at which the strength of details is looked at."""
_FAINTEST = 1e-3
"""Strength of details, frames in [-1, 1], far below which nobody sees a difference: an eighth of an 8-bit step."""


def match_taps(decoder: Decoder, taps: Mapping[str, Tap]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Last stage of the student on the grid (time and space factor) of each of the teacher's taps.

    Returns:
        Stage by tap, and the taps whose grid the student never visits.
    """
    stage_on = {decoder.stage_grid(index): index for index in range(len(decoder.stages))}
    stages = {name: stage_on[tap.temporal, tap.spatial] for name, tap in taps.items() if _grid(tap) in stage_on}
    return stages, tuple(name for name in taps if name not in stages)


def _grid(tap: Tap) -> tuple[int, int]:
    return tap.temporal, tap.spatial


class FeatureAlignment(nn.Module):
    """Projection heads from stages of the student to taps of the teacher; used in training only.

    A head is two 1x1x1 convolutions, student width -> teacher width -> teacher width, no activation between
    (Turbo-VAED, arXiv 2508.09136). The teacher's features are brought to mean 0 and standard deviation 1 per channel,
    by statistics of `samples`, so that no tap outweighs another and a weight means the same for all teachers.

    Args:
        decoder: the student.
        stages: stage of the student for each tap, from `match_taps`.
        samples: some of the teacher's features `(b, c, t, h, w)` for each tap.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, decoder: Decoder, stages: Mapping[str, int], samples: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stages = dict(stages)
        self.heads = nn.ModuleList()
        means, stds = [], []
        for tap, stage in self.stages.items():
            width = samples[tap].shape[1]
            first, second = nn.Conv3d(decoder.stage_channels(stage), width, 1), nn.Conv3d(width, width, 1)
            self.heads.append(nn.Sequential(first, second))
            per_channel = rearrange(samples[tap].float(), "b c t h w -> c (b t h w)")
            means.append(per_channel.mean(dim=1))
            stds.append(per_channel.std(dim=1).clamp(min=1e-6))
        self.register_buffer("mean", torch.cat(means) if means else torch.zeros(0))
        self.register_buffer("std", torch.cat(stds) if stds else torch.zeros(0))

    def project(self, features: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Features of the student by stage, `(b, c, t, h, w)` -> by tap, with the teacher's channels."""
        pairs = zip(self.stages.items(), self.heads, strict=True)
        return {tap: head(features[stage]) for (tap, stage), head in pairs}

    def loss(self, projected: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
        """Mean over taps of the mean squared error against the teacher's features, normalised per channel.

        Raises:
            ValueError: a tap does not lie on the grid that it claims.
        """
        losses = []
        widths = [teacher[tap].shape[1] for tap in self.stages]
        statistics = zip(self.stages, torch.split(self.mean, widths), torch.split(self.std, widths), strict=True)
        for tap, mean, std in statistics:
            mine, wanted = projected[tap].float(), teacher[tap].float()
            if mine.shape != wanted.shape:
                shapes = f"{tuple(mine.shape)} in the student, {tuple(wanted.shape)} in the teacher"
                raise ValueError(f"tap '{tap}' does not lie on the grid it claims: {shapes}")
            normed = (wanted - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)
            losses.append(functional.mse_loss(mine, normed))
        return torch.stack(losses).mean()


def frame_losses(
    frames: Tensor,
    teacher_frames: Tensor,
    truth: Tensor | None,
    settings: DistillSettings,
    perceptual: nn.Module | None,
) -> dict[str, Tensor]:
    """The parts of the loss that are about frames, `(b, 3, t, h, w)` in [-1, 1], without their weights.

    The teacher's frames count most because the student takes the teacher's place: whoever swaps the decoder expects the
    same pictures, and everything the latents do not say about the video itself can only be learnt as blur.

    Args:
        frames: of the student, not clamped.
        teacher_frames: what the teacher makes of the same latents.
        truth: the video that was encoded; None where its weight is 0.
        settings: whose weights say which parts are wanted: one with weight 0 is not computed.
        perceptual: network of LPIPS (`metrics.lpips_network`); None leaves that part out.
    """
    frames = frames.float()
    parts = {}
    if settings.teacher_weight:
        parts["teacher"] = functional.l1_loss(frames, teacher_frames)
    if settings.truth_weight:
        assert truth is not None
        parts["truth"] = functional.l1_loss(frames, truth)
    if settings.motion_weight and frames.shape[2] > 1:
        parts["motion"] = functional.l1_loss(frames.diff(dim=2), teacher_frames.diff(dim=2))
    if settings.detail_weight:
        parts["detail"] = functional.l1_loss(_detail(frames), _detail(teacher_frames))
    if settings.texture_weight:
        parts["texture"] = _texture_distance(frames, teacher_frames)
    if perceptual is not None:
        x, y = (rearrange(video, "b c t h w -> (b t) c h w") for video in (frames, teacher_frames))
        parts["perceptual"] = perceptual(x, y).mean()
    return parts


def total_loss(parts: Mapping[str, Tensor], settings: DistillSettings) -> Tensor:
    """Sum of the parts, each with its weight; a scalar."""
    return torch.stack([getattr(settings, f"{name}_weight") * part for name, part in parts.items()]).sum()


def _detail(frames: Tensor) -> Tensor:
    """What a blur of 3x3 pixels takes away."""
    images = rearrange(frames, "b c t h w -> (b t) c h w")
    return images - functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


def _texture_distance(frames: Tensor, wanted: Tensor) -> Tensor:
    """How far two videos are apart in the strength of details: a scalar on the scale of pixels.

    What is left of details that cannot be predicted is their mean, which is weaker. This asks for their strength
    whatever they are (texture energy, Laws 1980), and for none where there are none: it is the squared difference,
    since most of the strength is in a few places, over the strength in the whole clip.
    """
    mine, theirs = _strength(frames), _strength(wanted)
    squared, whole = (mine - theirs).square().flatten(1).mean(1), theirs.square().flatten(1).mean(1).sqrt()
    return (squared / whole).mean()


def _strength(frames: Tensor) -> Tensor:
    """Root mean square of details over 8x8 pixels, every four pixels, `(b, t, c, h, w)`."""
    energy = functional.avg_pool2d(_detail(frames).square(), _TEXTURE_SIZE, stride=_TEXTURE_SIZE // 2)
    return rearrange((energy + _FAINTEST**2).sqrt(), "(b t) c h w -> b t c h w", b=len(frames))
