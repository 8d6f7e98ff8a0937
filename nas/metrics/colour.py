"""Colour: drift of each channel in 8-bit steps, and the difference that people see (CIEDE2000)."""

import math

import torch
from torch import Tensor

from nas.metrics.frames import ValueRange, checked_videos, to_steps

_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear RGB with the primaries of sRGB -> XYZ."""
_WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of the white of sRGB, D65."""


def channel_drift(prediction: Tensor, target: Tensor, value_range: ValueRange) -> tuple[Tensor, Tensor]:
    """How far mean and standard deviation of R, G and B are off in every frame, each `(b, t, 3)`, in 8-bit steps.

    A positive mean is too bright in that channel, a negative standard deviation has too little contrast.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    x, y = (to_steps(each, value_range) for each in checked_videos(prediction, target, value_range))
    drift = x.mean(dim=(3, 4)) - y.mean(dim=(3, 4)), x.std((3, 4), correction=0) - y.std((3, 4), correction=0)
    mean, std = (each.transpose(1, 2) for each in drift)
    return mean, std


def delta_e(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """Mean colour difference of each clip, `(b,)`: mean over its frames of `delta_e_per_frame`.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    return delta_e_per_frame(prediction, target, value_range).mean(dim=1)


def delta_e_per_frame(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """Mean over the pixels of CIEDE2000 (Sharma et al. 2005) of every frame, `(b, t)`; about 1 can just be seen.

    Values are taken for sRGB.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    low, high = value_range
    videos = checked_videos(prediction, target, value_range)
    x, y = (_to_lab(((each - low) / (high - low)).clamp(0, 1)) for each in videos)
    return _ciede2000(x, y).mean(dim=(2, 3))


def _to_lab(video: Tensor) -> Tensor:
    """sRGB in [0, 1] -> CIELAB, both `(b, 3, t, h, w)`."""
    linear = torch.where(video > 0.04045, ((video + 0.055) / 1.055) ** 2.4, video / 12.92)
    matrix = video.new_tensor(_XYZ) / video.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("bcthw,kc->bkthw", linear, matrix)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """CIELAB `(b, 3, t, h, w)` -> the difference of every pixel, `(b, t, h, w)`."""
    (l1, a1, b1), (l2, a2, b2) = first.unbind(dim=1), second.unbind(dim=1)
    stretch = 1.5 - 0.5 * _chroma_weight((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = torch.atan2(b1, a1) % (2 * math.pi), torch.atan2(b2, a2) % (2 * math.pi)
    grey = c1 * c2 == 0  # which has no hue
    turn = torch.where(grey, 0.0, (h2 - h1 + math.pi) % (2 * math.pi) - math.pi)
    hue = torch.where(grey, h1 + h2, h1 + turn / 2)
    light, chroma = (l1 + l2) / 2 - 50, (c1 + c2) / 2
    wave = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
    blue = torch.exp(-(((torch.rad2deg(hue) % 360 - 275) / 25) ** 2))
    lightness = (l2 - l1) / (1 + 0.015 * light**2 / torch.sqrt(20 + light**2))
    colourful = (c2 - c1) / (1 + 0.045 * chroma)
    hued = 2 * torch.sqrt(c1 * c2) * torch.sin(turn / 2) / (1 + 0.015 * chroma * wave)
    rotation = -2 * _chroma_weight(chroma) * torch.sin(math.radians(60) * blue)
    squared = lightness**2 + colourful**2 + hued**2 + rotation * colourful * hued
    return torch.sqrt(squared.clamp(min=0))


def _chroma_weight(chroma: Tensor) -> Tensor:
    """From 0 for grey to 1 for vivid colours."""
    return torch.sqrt(chroma**7 / (chroma**7 + 25.0**7))
