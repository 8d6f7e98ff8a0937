"""Sharpness: how much of a reference's fine detail is there, which PSNR hardly sees and people see first.

Fine detail is the energy of the Laplacian of the luma, which a blur lowers; noise and ringing raise it.
"""

import torch
from torch import Tensor

from nas.metrics.frames import ValueRange, checked_videos, to_steps

_LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of R, G and B (ITU-R BT.709)."""
_LEAST = 1e-4
"""Energy in squared 8-bit steps that is added to both videos, so that two flat ones are equally sharp."""


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
    prediction, target = checked_videos(prediction, target, value_range)
    height, width = target.shape[-2:]
    if min(height, width) < 3:
        raise ValueError(f"sharpness needs frames of at least 3x3 pixels, got {height}x{width}")
    return _energy(to_steps(prediction, value_range)), _energy(to_steps(target, value_range))


def _energy(video: Tensor) -> Tensor:
    luma = torch.einsum("bcthw,c->bthw", video, video.new_tensor(_LUMA))
    inner, above, below = luma[..., 1:-1, 1:-1], luma[..., :-2, 1:-1], luma[..., 2:, 1:-1]
    laplacian = above + below + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:] - 4 * inner
    return laplacian.square().mean(dim=(2, 3))
