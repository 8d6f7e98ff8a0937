"""PSNR and SSIM of videos. Each frame is judged alone; the number of a clip is the mean over its frames.

Videos are `(b, 3, t, h, w)`, RGB. `value_range` is (low, high), the values of black and white: `VIDEO_RANGE`,
(0.0, 1.0) or (0.0, 255.0). It is never guessed from the data, and nothing is rescaled by its own minimum and maximum,
so a change of contrast or brightness costs what it should. Values outside of the range are an error: clamp the output
of a decoder first, as a player would.

They are computed here, with torchmetrics and scikit-image as cross-checks in the tests, to have per-frame values in
float64.
"""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

ValueRange = tuple[float, float]
"""(low, high): the values of black and white, between which the pixels of a video lie."""

VIDEO_RANGE: ValueRange = (-1.0, 1.0)
"""Value range of the videos that teachers and students take and give."""

PSNR_CEILING = 100.0
"""PSNR in dB of frames that are equal, instead of infinity, which no mean survives."""

_TOLERANCE = 1e-3
"""How far values may lie outside of the range, as a share of its width (rounding in half precision)."""
_WINDOW = 11
"""Side of the Gaussian window of SSIM in pixels."""
_SIGMA = 1.5
"""Standard deviation of the Gaussian window of SSIM in pixels."""


def psnr(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """Peak signal-to-noise ratio in dB of each clip, `(b,)`: mean over its frames of `psnr_per_frame`, at most 100.

    The variant that pools the error of a clip before the logarithm is `psnr_pooled`.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    return psnr_per_frame(prediction, target, value_range).mean(dim=1)


def psnr_per_frame(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """PSNR in dB of every frame, `(b, t)`, at most `PSNR_CEILING`.

    Raises:
        ValueError: the two are not videos `(b, 3, t, h, w)` of one shape, `value_range` is not a tuple (low, high), or
            values lie outside of it.
    """
    prediction, target = checked_videos(prediction, target, value_range)
    return _decibels((prediction - target).square().mean(dim=(1, 3, 4)), value_range)


def psnr_pooled(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """PSNR in dB of the mean squared error over all frames of a clip, `(b,)`: bad frames weigh more than in `psnr`.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    prediction, target = checked_videos(prediction, target, value_range)
    return _decibels((prediction - target).square().mean(dim=(1, 2, 3, 4)), value_range)


def ssim(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """Structural similarity of each clip, `(b,)`, at most 1: mean over its frames of `ssim_per_frame`.

    Raises:
        ValueError: as `ssim_per_frame`.
    """
    return ssim_per_frame(prediction, target, value_range).mean(dim=1)


def ssim_per_frame(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """Structural similarity of every frame, `(b, t)`, at most 1 (Wang et al. 2004): mean over R, G and B.

    Gaussian window of 11x11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, only windows that lie inside of the frame.

    Raises:
        ValueError: as `psnr_per_frame`; or a frame is smaller than the window.
    """
    prediction, target = checked_videos(prediction, target, value_range)
    height, width = prediction.shape[-2:]
    if min(height, width) < _WINDOW:
        raise ValueError(f"SSIM needs frames of at least {_WINDOW}x{_WINDOW} pixels, got {height}x{width}")
    low, high = value_range
    # The luminance term is meant for intensities from 0 on.
    x, y = (rearrange(video - low, "b c t h w -> (b t c) 1 h w") for video in (prediction, target))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * (high - low)) ** 2, (0.03 * (high - low)) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    frames = (luminance * structure).mean(dim=(1, 2, 3)).float()
    batch, channels = prediction.shape[:2]
    return rearrange(frames, "(b t c) -> b t c", b=batch, c=channels).mean(dim=2)


def checked_videos(prediction: Tensor, target: Tensor, value_range: ValueRange) -> tuple[Tensor, Tensor]:
    """Both videos in float64, for the differences of nearly equal frames (in float32 on Apple's GPUs, which lack it).

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    _check_range(value_range)
    if prediction.shape != target.shape or prediction.ndim != 5 or prediction.shape[1] != 3:
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise ValueError(f"expected two videos (b, 3, t, h, w) of one shape, got {shapes}")
    for name, video in (("prediction", prediction), ("target", target)):
        _check_values(name, video, value_range)
    dtype = torch.float32 if prediction.device.type == "mps" else torch.float64
    return prediction.to(dtype), target.to(dtype)


def to_steps(video: Tensor, value_range: ValueRange) -> Tensor:
    """A video in 8-bit steps: black is 0, white is 255, nothing is rounded."""
    low, high = value_range
    return (video - low) * (255 / (high - low))


def _check_values(name: str, video: Tensor, value_range: ValueRange) -> None:
    """ValueError if values lie outside of their range, or are no numbers."""
    low, high = value_range
    slack = _TOLERANCE * (high - low)
    smallest, largest = (float(value) for value in video.detach().aminmax())
    # Written so that NaN fails too.
    if not (smallest >= low - slack and largest <= high + slack):
        raise ValueError(
            f"value_range ({low:g}, {high:g}) means values in [{low:g}, {high:g}], but the {name} "
            f"has [{smallest:.4g}, {largest:.4g}]: give the range it has, or clamp it"
        )


def _check_range(value_range: Any) -> None:
    """ValueError unless it is a tuple of two finite numbers, the lower one first."""
    numbers = value_range if isinstance(value_range, tuple) else ()
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        numbers = ()
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError(
            f"value_range has to be a tuple (low, high) such as (-1.0, 1.0) or (0.0, 255.0), got {value_range!r}"
        )


def _decibels(error: Tensor, value_range: ValueRange) -> Tensor:
    """PSNR in dB of mean squared errors, of any shape."""
    peak = (value_range[1] - value_range[0]) ** 2
    return (10 * torch.log10(peak / error.clamp(min=peak * 10 ** (-PSNR_CEILING / 10)))).float()


def _blur(images: Tensor) -> Tensor:
    """`(n, 1, h, w)` -> `(n, 1, h - 10, w - 10)`: the Gaussian window, one axis after the other."""
    offsets = torch.arange(_WINDOW, dtype=images.dtype, device=images.device) - _WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    down = functional.conv2d(images, window.view(1, 1, -1, 1))
    return functional.conv2d(down, window.view(1, 1, 1, -1))
