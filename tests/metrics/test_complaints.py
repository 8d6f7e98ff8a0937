"""Sharpness, colour, flicker, seams: against scikit-image, torchmetrics and NumPy, and on faults that people see."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from einops import rearrange
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.filters import laplace
from torch import Tensor
from torch.nn import functional

from nas import metrics
from nas.machine.torchvision_operators import import_torchvision
from nas.metrics import VIDEO_RANGE
from tests.metrics.test_cross_check import clip, half_contrast, noise, shifted_red, swapped_channels

import_torchvision()

from torchmetrics.functional import mean_absolute_error  # noqa: E402

STEP = 2 / 255
"""One 8-bit step of a video in [-1, 1]."""


def moving(frames: int = 9, height: int = 64, width: int = 96) -> Tensor:
    """`(1, 3, t, h, w)` in [-0.9, 0.9]: a coloured texture that glides by, three pixels a frame."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, height // 4, width // 2, generator=generator)
    picture = functional.interpolate(coarse, size=(height, 2 * width), mode="bicubic").clamp(0, 1)
    picture = (picture + 0.2 * torch.rand(picture.shape, generator=generator)) / 1.2
    shown = [picture[..., 3 * index : 3 * index + width] for index in range(frames)]
    return 1.8 * torch.stack(shown, dim=2) - 0.9


def decoded(x: Tensor) -> Tensor:
    """As of a decoder without any fault but noise: 36 dB."""
    return (x + 4 * STEP * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))).clamp(-1, 1)


def blurred(x: Tensor) -> Tensor:
    """A 3x3 mean of every frame."""
    padded = functional.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate")
    return functional.avg_pool3d(padded, (1, 3, 3), stride=1)


def blurred_and_ringing(x: Tensor) -> Tensor:
    """Blurred on the left, and on the right with as much too much detail as is missing there."""
    soft, middle = blurred(x), x.shape[-1] // 2
    return torch.cat([soft[..., :middle], (x + 0.43 * (x - soft))[..., middle:]], dim=-1)


def frame_repeated(x: Tensor) -> Tensor:
    """Frame 4 is shown again in the place of frame 5."""
    order = list(range(x.shape[2]))
    order[5] = 4
    return x[:, :, order]


def tile_seam(x: Tensor) -> Tensor:
    """The tile on the right is brighter by two steps of 255."""
    lighter = x.clone()
    lighter[..., 48:] += 2 * STEP
    return lighter


def chunk_seam(x: Tensor) -> Tensor:
    """From frame 5 on, where a chunk begins, everything is brighter by two steps of 255."""
    lighter = x.clone()
    lighter[:, :, 5:] += 2 * STEP
    return lighter


def images(x: Tensor) -> np.ndarray:
    """Every frame in [0, 1], `(b t, h, w, 3)`, float64."""
    shown: np.ndarray = rearrange(x.double() / 2 + 0.5, "b c t h w -> (b t) h w c").numpy()
    return shown


# What others compute


@pytest.mark.parametrize("change", [noise, half_contrast, shifted_red, swapped_channels, blurred])
def test_sharpness_is_the_laplacian_of_scikit_image(change: Callable[[Tensor], Tensor]) -> None:
    target = clip()
    prediction = change(target)
    luma = [images(each) @ np.array([0.2126, 0.7152, 0.0722]) * 255 for each in (prediction, target)]
    energy = [np.array([np.mean(laplace(frame)[1:-1, 1:-1] ** 2) for frame in each]).reshape(2, 3) for each in luma]
    found = metrics.high_band_energies(prediction, target, VIDEO_RANGE)
    for mine, theirs in zip(found, energy, strict=True):
        assert mine.numpy() == pytest.approx(theirs, rel=1e-6)
    ratio = energy[0].mean(axis=1) / energy[1].mean(axis=1)
    assert metrics.sharpness(prediction, target, VIDEO_RANGE).numpy() == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize("change", [noise, half_contrast, swapped_channels, blurred])
def test_detail_error_is_what_a_loop_finds(change: Callable[[Tensor], Tensor]) -> None:
    target = clip()
    prediction = change(target)
    luma = [images(each) @ np.array([0.2126, 0.7152, 0.0722]) * 255 for each in (prediction, target)]
    mine, theirs = ([laplace(frame)[1:-1, 1:-1] for frame in each] for each in luma)
    places = [(slice(y, y + 8), slice(x, x + 8)) for y in range(0, 22 - 7, 4) for x in range(0, 30 - 7, 4)]
    for sample, found in enumerate(metrics.detail_error(prediction, target, VIDEO_RANGE).tolist()):
        frames = range(3 * sample, 3 * sample + 3)
        strengths = [
            [np.sqrt(np.mean(each[frame][place] ** 2)) for frame in frames for place in places]
            for each in (mine, theirs)
        ]
        error = np.array(strengths[0]) - np.array(strengths[1])
        expected = np.sqrt(np.mean(error**2) / np.mean(np.square(strengths[1])))
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("change", [noise, half_contrast, shifted_red, swapped_channels, torch.zeros_like])
def test_delta_e_is_that_of_scikit_image(change: Callable[[Tensor], Tensor]) -> None:
    target = clip()
    target[0, :, 0] = 0.3  # grey, which has no hue
    prediction = change(target)
    expected = deltaE_ciede2000(rgb2lab(images(target)), rgb2lab(images(prediction))).mean(axis=(1, 2))
    found = metrics.delta_e_per_frame(prediction, target, VIDEO_RANGE)
    assert found.flatten().numpy() == pytest.approx(expected, abs=1e-4)
    assert metrics.delta_e(prediction, target, VIDEO_RANGE).numpy() == pytest.approx(expected.reshape(2, 3).mean(1))


@pytest.mark.parametrize("change", [noise, half_contrast, shifted_red, swapped_channels])
def test_channel_drift_is_what_numpy_says(change: Callable[[Tensor], Tensor]) -> None:
    target = clip()
    x, y = (255 * images(each) for each in (change(target), target))
    mean, std = metrics.channel_drift(change(target), target, VIDEO_RANGE)
    assert mean.shape == std.shape == (2, 3, 3)
    assert mean.flatten(0, 1).numpy() == pytest.approx(x.mean(axis=(1, 2)) - y.mean(axis=(1, 2)), abs=1e-4)
    assert std.flatten(0, 1).numpy() == pytest.approx(x.std(axis=(1, 2)) - y.std(axis=(1, 2)), abs=1e-4)


def test_flicker_is_the_mean_absolute_error_of_the_changes() -> None:
    target = clip()
    prediction = noise(target)
    found = metrics.frame_difference_error(prediction, target, VIDEO_RANGE)
    changes = [
        (255 * torch.from_numpy(images(each)).view(2, 3, 24, 32, 3)).diff(dim=1) for each in (prediction, target)
    ]
    for sample in range(2):
        for frame in range(2):
            mine, theirs = (each[sample, frame].contiguous() for each in changes)
            expected = mean_absolute_error(mine, theirs)
            assert found[sample, frame].item() == pytest.approx(expected.item(), abs=1e-4)


def test_steps_of_the_error_are_what_a_loop_finds() -> None:
    target = moving(3, 40, 32)
    prediction = decoded(target)
    error = 255 * (images(prediction) - images(target))
    columns, rows = metrics.line_steps(prediction, target, VIDEO_RANGE)
    frames = metrics.frame_steps(prediction, target, VIDEO_RANGE)
    for x in range(31):
        steps = error[:, :32, x + 1] - error[:, :32, x]
        expected = np.mean([abs(steps[:, top : top + 16].mean(axis=1)) for top in (0, 16)])
        assert columns[0, x].item() == pytest.approx(expected, abs=1e-4)
    for y in range(39):
        steps = error[:, y + 1] - error[:, y]
        expected = np.mean([abs(steps[:, left : left + 16].mean(axis=1)) for left in (0, 16)])
        assert rows[0, y].item() == pytest.approx(expected, abs=1e-4)
    for t in range(2):
        squares = [
            (error[t + 1] - error[t])[y : y + 16, x : x + 16].mean(axis=(0, 1)) for y in (0, 16) for x in (0, 16)
        ]
        assert frames[0, t].item() == pytest.approx(np.mean(np.abs(squares)), abs=1e-4)


# What people see

READINGS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "psnr": lambda x, y: metrics.psnr(x, y, VIDEO_RANGE).item(),
    "ssim": lambda x, y: metrics.ssim(x, y, VIDEO_RANGE).item(),
    "sharpness": lambda x, y: metrics.sharpness(x, y, VIDEO_RANGE).item(),
    "detail error": lambda x, y: metrics.detail_error(x, y, VIDEO_RANGE).item(),
    "mean drift": lambda x, y: metrics.channel_drift(x, y, VIDEO_RANGE)[0].mean(dim=1).abs().max().item(),
    "std drift": lambda x, y: metrics.channel_drift(x, y, VIDEO_RANGE)[1].mean(dim=1).abs().max().item(),
    "delta e": lambda x, y: metrics.delta_e(x, y, VIDEO_RANGE).item(),
    "flicker": lambda x, y: metrics.frame_difference_error(x, y, VIDEO_RANGE).max().item(),
    "stuck": lambda x, y: float(metrics.stuck_frames(x, y, VIDEO_RANGE).sum()),
    "tile seams": lambda x, y: metrics.tile_seams(x, y, VIDEO_RANGE, 8).item(),
    "chunk seams": lambda x, y: metrics.chunk_seams(x, y, VIDEO_RANGE, [1, 5]).item(),
}

PASSES: dict[str, tuple[float, float]] = {
    "psnr": (34.0, math.inf),
    "ssim": (0.98, 1.0),
    "sharpness": (0.9, 1.25),
    "detail error": (0.0, 0.15),
    "mean drift": (0.0, 0.5),
    "std drift": (0.0, 0.5),
    "delta e": (0.0, 2.5),
    "flicker": (0.0, 6.0),
    "stuck": (0.0, 0.0),
    "tile seams": (0.0, 1.3),
    "chunk seams": (0.0, 1.3),
}
"""What a decoder has whose only fault is noise at 36 dB, with some room."""

CAUGHT: dict[str, tuple[Callable[[Tensor], Tensor], set[str]]] = {
    "nothing": (lambda x: x, set()),
    "contrast halved": (
        half_contrast,
        {"psnr", "ssim", "sharpness", "detail error", "std drift", "delta e", "flicker"},
    ),
    "one channel shifted by 2/255": (shifted_red, {"mean drift"}),
    "one frame repeated": (frame_repeated, {"psnr", "ssim", "flicker", "stuck", "chunk seams"}),
    "blur here, ringing there": (blurred_and_ringing, {"psnr", "ssim", "detail error"}),
    "blur": (blurred, {"psnr", "ssim", "sharpness", "detail error", "std drift", "delta e", "flicker"}),
    "a seam between tiles": (tile_seam, {"mean drift", "tile seams"}),
    "a seam between chunks": (chunk_seam, {"mean drift", "chunk seams"}),
    "swapped channels": (
        swapped_channels,
        {"psnr", "ssim", "mean drift", "std drift", "delta e", "flicker"},
    ),
}
"""What is done to a decoder's frames, and which of the metrics have to show it; the others may."""


@pytest.mark.parametrize("fault", CAUGHT)
def test_faults_are_shown_by_the_metrics_that_are_there_for_them(fault: str) -> None:
    target = moving()
    change, expected = CAUGHT[fault]
    prediction = change(decoded(target)).clamp(-1, 1)
    found = {name: reading(prediction, target) for name, reading in READINGS.items()}
    outside = {name for name, (low, high) in PASSES.items() if not low <= found[name] <= high}
    assert outside >= expected, found
    assert expected or not outside, found


def test_equal_videos_have_no_fault() -> None:
    x = moving()
    found = {name: reading(x, x) for name, reading in READINGS.items()}
    best = {"psnr": 100.0, "ssim": 1.0, "sharpness": 1.0, "tile seams": 1.0, "chunk seams": 1.0}
    assert found == pytest.approx(dict.fromkeys(READINGS, 0.0) | best, abs=1e-6)
    flat = torch.zeros(1, 3, 2, 16, 16)
    assert metrics.sharpness(flat, flat, VIDEO_RANGE).item() == 1.0
    assert not metrics.stuck_frames(flat, flat, VIDEO_RANGE).any()


def test_the_faults_have_the_numbers_that_can_be_worked_out() -> None:
    x = moving()
    mean, std = metrics.channel_drift(shifted_red(x), x, VIDEO_RANGE)
    assert mean[0, 0].tolist() == pytest.approx([2, 0, 0], abs=1e-4)
    assert std[0, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert metrics.sharpness(half_contrast(x), x, VIDEO_RANGE).item() == pytest.approx(0.25, abs=1e-4)
    assert metrics.stuck_frames(frame_repeated(x), x, VIDEO_RANGE).tolist() == [[index == 4 for index in range(8)]]
    assert metrics.tile_seams(tile_seam(x), x, VIDEO_RANGE, 8).item() == pytest.approx(21, abs=1e-3)
    assert metrics.chunk_seams(chunk_seam(x), x, VIDEO_RANGE, [1, 5]).item() == pytest.approx(21, abs=1e-3)
    assert metrics.chunk_seams(chunk_seam(x), x, VIDEO_RANGE, []).item() == 1


@pytest.mark.parametrize("reading", READINGS)
def test_another_range_gives_the_same_numbers(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = moving()
    prediction = decoded(target)
    expected = READINGS[reading](prediction, target)
    monkeypatch.setitem(globals(), "VIDEO_RANGE", (0.0, 255.0))
    found = READINGS[reading]((prediction + 1) * 127.5, (target + 1) * 127.5)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_frames_too_small_for_sharpness_are_refused() -> None:
    x = torch.zeros(1, 3, 1, 2, 5)
    with pytest.raises(ValueError, match="at least 3x3 pixels, got 2x5"):
        metrics.sharpness(x, x, VIDEO_RANGE)
    with pytest.raises(ValueError, match="two videos"):
        metrics.delta_e(x, x[:, :, :0], VIDEO_RANGE)
