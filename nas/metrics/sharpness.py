"""Sharpness: how much of a reference's fine detail is there, which PSNR hardly sees and people see first.

Fine detail is the energy of the Laplacian of the luma, which a blur lowers; noise and ringing raise it. In a sum over
all places a blur here and a grid there make up for each other, so there is also an error place by place.
"""

import torch
from torch import Tensor
from torch.nn import functional

from nas.metrics.frames import ValueRange, checked_videos, to_steps

_LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of R, G and B (ITU-R BT.709)."""
_LEAST = 1e-4
"""Energy in squared 8-bit steps that is added to both videos, so that two flat ones are equally sharp."""

_PLACE = 8
"""Height and width in pixels of a place; they overlap by half."""


def sharpness(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """High-band energy of each clip as a share of the target's, `(b,)`: 1 is as sharp, less is blurred.

    Raises:
        ValueError: as `high_band_energies`.
    """
    return energy_ratio(*high_band_energies(prediction, target, value_range))


def energy_ratio(prediction: Tensor, target: Tensor) -> Tensor:
    """Energies per frame `(b, t)` of two videos -> the ratio of their means over the frames, `(b,)`."""
    return (prediction.mean(dim=1) + _LEAST) / (target.mean(dim=1) + _LEAST)


def high_band_energies(prediction: Tensor, target: Tensor, value_range: ValueRange) -> tuple[Tensor, Tensor]:
    """Mean square of the Laplacian of the luma of every frame of both videos, each `(b, t)`, in squared 8-bit steps.

    The Laplacian is that of the four neighbours, where all of them are in the frame.

    Raises:
        ValueError: as `psnr_per_frame`; or a frame is smaller than 3x3 pixels.
    """
    return _means(*(laplacian.square() for laplacian in _laplacians(prediction, target, value_range)))


def detail_error(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """How far the strength of fine detail is off, place by place, `(b,)`: 0 is equal, 1 is no detail at all.

    A place is 8x8 pixels of a frame, the strength the root mean square of the Laplacian in it. The root mean square of
    its error is divided by that of the target's strength, both over all places and frames. What the detail is does not
    matter: another pattern of the same strength has an error near 0.

    Raises:
        ValueError: as `high_band_energies`.
    """
    return error_ratio(*strength_errors(prediction, target, value_range))


def error_ratio(errors: Tensor, energies: Tensor) -> Tensor:
    """What `strength_errors` found, of all frames `(b, t)` -> the error of each clip, `(b,)`."""
    return (errors.mean(dim=1) / (energies.mean(dim=1) + _LEAST)).sqrt()


def strength_errors(prediction: Tensor, target: Tensor, value_range: ValueRange) -> tuple[Tensor, Tensor]:
    """Mean square over the places of every frame of the error of the strength of detail, and of the target's strength.

    Returns:
        Both `(b, t)`, in squared 8-bit steps.

    Raises:
        ValueError: as `high_band_energies`.
    """
    mine, theirs = (_strengths(laplacian) for laplacian in _laplacians(prediction, target, value_range))
    return _means((mine - theirs).square(), theirs.square())


def _strengths(laplacian: Tensor) -> Tensor:
    """`(b, t, h, w)` -> the root mean square of every place."""
    place = [min(_PLACE, size) for size in laplacian.shape[-2:]]
    return functional.avg_pool2d(laplacian.square(), place, stride=_PLACE // 2).sqrt()


def _means(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Over every frame, `(b, t, h, w)` -> `(b, t)`."""
    return prediction.mean(dim=(2, 3)), target.mean(dim=(2, 3))


def _laplacians(prediction: Tensor, target: Tensor, value_range: ValueRange) -> tuple[Tensor, Tensor]:
    prediction, target = checked_videos(prediction, target, value_range)
    height, width = target.shape[-2:]
    if min(height, width) < 3:
        raise ValueError(f"sharpness needs frames of at least 3x3 pixels, got {height}x{width}")
    return _laplacian(to_steps(prediction, value_range)), _laplacian(to_steps(target, value_range))


def _laplacian(video: Tensor) -> Tensor:
    """Of the luma, `(b, t, h - 2, w - 2)`."""
    luma = torch.einsum("bcthw,c->bthw", video, video.new_tensor(_LUMA))
    inner, above, below = luma[..., 1:-1, 1:-1], luma[..., :-2, 1:-1], luma[..., 2:, 1:-1]
    return above + below + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:] - 4 * inner
