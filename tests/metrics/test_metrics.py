"""Metrics against known values: they must punish what a viewer sees, and refuse data in another range."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas import metrics
from nas.metrics import VIDEO_RANGE

Metric = Callable[[Tensor, Tensor, metrics.ValueRange], Tensor]


def video(batch: int = 2, frames: int = 3, height: int = 24, width: int = 32, seed: int = 0) -> Tensor:
    """`(b, 3, t, h, w)` in [-1, 1]: smooth blobs with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, frames, 4, 4, generator=generator) * 1.6 - 0.8
    fine = torch.nn.functional.interpolate(coarse, size=(frames, height, width), mode="trilinear")
    noisy: Tensor = fine + 0.1 * (torch.rand(fine.shape, generator=generator) - 0.5)
    return noisy.clamp(-1, 1)


def test_psnr_sees_a_change_of_contrast() -> None:
    """y = 0.9 x + 0.02 on [0, 1]: the published evaluation rated it 120 dB; it is 27 dB."""
    target = torch.linspace(0, 1, 64).expand(1, 3, 2, 16, 64)
    error = ((0.1 * target[0, 0, 0, 0].double() - 0.02) ** 2).mean().item()
    expected = -10 * math.log10(error)
    assert 26 < expected < 29
    got = metrics.psnr(0.9 * target + 0.02, target, (0.0, 1.0))
    assert got.tolist() == pytest.approx([expected], abs=1e-3)
    half_contrast = metrics.psnr(target / 2, target, (0.0, 1.0))
    assert half_contrast.item() < 12


def test_psnr_is_the_mean_over_frames_and_pooled_is_not() -> None:
    target = torch.zeros(2, 3, 2, 8, 8)
    prediction = target.clone()
    prediction[0, :, 0] = 0.2
    prediction[0, :, 1] = 0.02
    first, second = -10 * math.log10(0.04 / 4), -10 * math.log10(0.0004 / 4)
    frames = metrics.psnr_per_frame(prediction, target, VIDEO_RANGE)
    assert frames[0].tolist() == pytest.approx([first, second], abs=1e-3)
    assert metrics.psnr(prediction, target, VIDEO_RANGE)[0].item() == pytest.approx((first + second) / 2, abs=1e-3)
    pooled = -10 * math.log10((0.04 + 0.0004) / 2 / 4)
    assert metrics.psnr_pooled(prediction, target, VIDEO_RANGE)[0].item() == pytest.approx(pooled, abs=1e-3)


def test_equal_frames_have_the_ceiling() -> None:
    x = video()
    assert metrics.psnr(x, x, VIDEO_RANGE).tolist() == [metrics.PSNR_CEILING] * 2
    assert metrics.ssim(x, x, VIDEO_RANGE).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


def _slow_ssim(x: Tensor, y: Tensor) -> float:
    """SSIM of two planes in [0, 1], window by window, as the paper writes it."""
    axis = torch.exp(-((torch.arange(11.0).double() - 5) ** 2) / 4.5)
    weights = torch.outer(axis, axis) / axis.sum() ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (plane[top : top + 11, left : left + 11].double() for plane in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            cov = (weights * (a - mean_a) * (b - mean_b)).sum()
            numerator = (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4)
            values.append(numerator / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    return float(torch.stack(values).mean())


def test_ssim_is_the_published_formula() -> None:
    x, y = (video(1, 1, 14, 17, seed).add(1).div(2) for seed in (1, 2))
    y = 0.7 * x + 0.3 * y
    expected = sum(_slow_ssim(x[0, channel, 0], y[0, channel, 0]) for channel in range(3)) / 3
    assert metrics.ssim(x, y, (0.0, 1.0)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.psnr_pooled, metrics.ssim])
def test_the_same_pictures_in_another_range_get_the_same_number(metric: Metric) -> None:
    x, y = video(seed=3), video(seed=4)
    expected = metric(x, y, VIDEO_RANGE)
    assert torch.allclose(metric((x + 1) / 2, (y + 1) / 2, (0.0, 1.0)), expected, atol=1e-4)
    assert torch.allclose(metric((x + 1) * 127.5, (y + 1) * 127.5, (0.0, 255.0)), expected, atol=1e-4)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim])
def test_a_clip_does_not_depend_on_its_batch(metric: Metric) -> None:
    x, y = video(seed=5), video(seed=6)
    assert torch.allclose(metric(x[1:], y[1:], VIDEO_RANGE), metric(x, y, VIDEO_RANGE)[1:])


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.psnr_pooled, metrics.ssim])
@pytest.mark.parametrize("value", [1.1, -1.1, math.nan, math.inf])
def test_values_outside_of_the_range_are_refused(metric: Metric, value: float) -> None:
    x = video()
    wrong = x.clone()
    wrong[0, 0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"means values in \[-1, 1\], but the prediction"):
        metric(wrong, x, VIDEO_RANGE)
    with pytest.raises(ValueError, match="but the target"):
        metric(x, wrong, VIDEO_RANGE)


def test_signed_values_declared_as_unsigned_are_refused() -> None:
    x = video()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        metrics.psnr(x, x, (0.0, 1.0))


@pytest.mark.parametrize(
    "metric",
    [
        *(metrics.psnr, metrics.psnr_per_frame, metrics.psnr_pooled, metrics.ssim, metrics.ssim_per_frame),
        *(metrics.lpips, metrics.lpips_per_frame),
    ],
)
@pytest.mark.parametrize(
    "value_range",
    [
        2.0,
        1,
        (1.0,),
        (0.0, 0.5, 1.0),
        (1.0, -1.0),
        (0.0, 0.0),
        (0.0, math.inf),
        (math.nan, 1.0),
        [-1.0, 1.0],
        ("0", "1"),
    ],
)
def test_a_range_that_is_not_a_tuple_of_low_and_high_is_refused(metric: Metric, value_range: Any) -> None:
    x = video()
    with pytest.raises(ValueError, match=r"has to be a tuple \(low, high\) such as \(-1\.0, 1\.0\)") as caught:
        metric(x, x, value_range)
    assert str(caught.value).endswith(f"got {value_range!r}") and "\n" not in str(caught.value)


def test_shapes_are_checked() -> None:
    x = video()
    with pytest.raises(ValueError, match=r"two videos \(b, 3, t, h, w\)"):
        metrics.psnr(x, x[:, :, :1], VIDEO_RANGE)
    with pytest.raises(ValueError, match="two videos"):
        metrics.psnr(x[0], x[0], VIDEO_RANGE)
    with pytest.raises(ValueError, match=r"at least 11x11 pixels, got 10x32"):
        metrics.ssim(x[..., :10, :], x[..., :10, :], VIDEO_RANGE)


def test_lpips_is_off_without_the_real_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metrics.lpips_network.cache_clear()
    assert not metrics.lpips_available()
    assert metrics.lpips_off().startswith("LPIPS off: weights of alexnet not cached (")
    with pytest.raises(ValueError, match="LPIPS off"):
        metrics.lpips(video(), video(), VIDEO_RANGE)
    wrong = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"other weights")
    assert "is damaged" in metrics.lpips_off()
    with pytest.raises(ValueError, match="is damaged"):
        metrics.lpips_network()


def test_the_backbone_of_lpips_is_filled_from_torchvision_names() -> None:
    """With random weights, so the distance means nothing; it shows that the package's network runs and is filled."""
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    backbone = {f"features.{i}.weight": torch.randn(shape, generator=generator) for i, shape in shapes.items()}
    backbone |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}
    network = metrics.build_lpips("alex", backbone)
    weight = network.get_parameter("net.slice2.3.weight")
    assert torch.equal(weight, backbone["features.3.weight"])
    x = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    assert network(x, x).flatten().tolist() == [0.0, 0.0]
    assert (network(x, -x) > 0).all()
