"""PSNR, SSIM and LPIPS against torchmetrics and scikit-image: for noise, and faults that a metric must not overlook."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from einops import rearrange, repeat
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from nas.machine.torchvision_operators import import_torchvision
from nas.metrics import (
    VIDEO_RANGE,
    build_lpips,
    lpips_per_frame,
    perceptual,
    psnr_per_frame,
    psnr_pooled,
    ssim_per_frame,
)
from tests.metrics.test_metrics import video

import_torchvision()

from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr  # noqa: E402
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim  # noqa: E402
from torchmetrics.functional.image.lpips import _LPIPS as TorchmetricsLpips  # noqa: E402

Frames = list[list[float]]
"""One number per frame of every clip."""


def noise(x: Tensor) -> Tensor:
    """Every frame of every clip with a noise of its own strength."""
    batch, frames = x.shape[0], x.shape[2]
    strength = torch.linspace(0.01, 0.3, batch * frames).view(batch, 1, frames, 1, 1)
    return (x + strength * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)


def half_contrast(x: Tensor) -> Tensor:
    """Around grey, as a rescaling by the frame's own minimum and maximum would hide."""
    return x / 2


def shifted_red(x: Tensor) -> Tensor:
    """Red brighter by two of 255 steps."""
    step = torch.tensor([2 * 2 / 255, 0.0, 0.0])
    return x + repeat(step, "c -> 1 c 1 1 1")


def swapped_channels(x: Tensor) -> Tensor:
    """BGR instead of RGB."""
    return x.flip(1)


FAULTS = [half_contrast, shifted_red, swapped_channels]


def clip() -> Tensor:
    """`(2, 3, 3, 24, 32)` in [-0.9, 0.9], so that a shift stays in [-1, 1]."""
    return 0.9 * video(seed=7)


def images(x: Tensor) -> Tensor:
    """Every frame as an image in [0, 2], `(b t, 3, h, w)`, in float64."""
    return rearrange(x.double() + 1, "b c t h w -> (b t) c h w")


def by_clip(values: Tensor, like: Tensor) -> Frames:
    """One value per image -> per clip and frame."""
    found: Frames = rearrange(values, "(b t) -> b t", b=len(like)).tolist()
    return found


def by_torchmetrics(prediction: Tensor, target: Tensor) -> tuple[Frames, Frames]:
    """PSNR in dB and SSIM per frame."""
    x, y = images(prediction), images(target)
    decibels = torchmetrics_psnr(x, y, data_range=2.0, reduction="none", dim=(1, 2, 3))
    # Its mean counts windows over a mirrored border too, which neither Wang et al. nor scikit-image do.
    _, windows = torchmetrics_ssim(x, y, data_range=2.0, reduction="none", return_full_image=True)
    return by_clip(decibels, target), by_clip(windows[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)), target)


def by_scikit_image(prediction: Tensor, target: Tensor) -> tuple[Frames, Frames]:
    """PSNR in dB and SSIM per frame, with the window of Wang et al."""
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
    decibels, similarity = [], []
    for x, y in zip(images(prediction).numpy(), images(target).numpy(), strict=True):
        decibels.append(peak_signal_noise_ratio(y, x, data_range=2.0))
        similarity.append(structural_similarity(x, y, data_range=2.0, **window))
    return by_clip(torch.tensor(np.array(decibels)), target), by_clip(torch.tensor(np.array(similarity)), target)


def near(expected: Frames) -> object:
    return pytest.approx(np.array(expected), rel=1e-6)


@pytest.mark.parametrize("reference", [by_torchmetrics, by_scikit_image])
@pytest.mark.parametrize("change", [noise, *FAULTS])
def test_every_frame_has_the_number_that_others_give_it(
    change: Callable[[Tensor], Tensor], reference: Callable[[Tensor, Tensor], tuple[Frames, Frames]]
) -> None:
    target = clip()
    prediction = change(target)
    decibels, similarity = reference(prediction, target)
    assert psnr_per_frame(prediction, target, VIDEO_RANGE).numpy() == near(decibels)
    assert ssim_per_frame(prediction, target, VIDEO_RANGE).numpy() == near(similarity)


def test_a_clip_pooled_is_what_torchmetrics_calls_psnr() -> None:
    target = clip()
    prediction = noise(target)
    expected = torchmetrics_psnr(
        prediction.double(), target.double(), data_range=2.0, reduction="none", dim=(1, 2, 3, 4)
    )
    assert psnr_pooled(prediction, target, VIDEO_RANGE).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("net", ["alex", pytest.param("vgg", marks=pytest.mark.slow)])
def test_lpips_is_that_of_torchmetrics(net: perceptual.LpipsNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the published heads on a random backbone, which is the same for both."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = TorchmetricsLpips(net=net, pnet_rand=True)
    weights = theirs.get_submodule("net").state_dict()
    backbone = {f"features.{name.split('.', 1)[1]}": weight for name, weight in weights.items()}
    monkeypatch.setattr(perceptual, "lpips_network", lambda net: build_lpips(net, backbone).requires_grad_(False))
    target = video(1, 2, 64, 64, seed=8)
    prediction = noise(target)
    x, y = (rearrange(each, "b c t h w -> (b t) c h w") for each in (prediction, target))
    with torch.no_grad():
        expected = theirs(x, y).flatten()
    assert lpips_per_frame(prediction, target, VIDEO_RANGE, net)[0].tolist() == pytest.approx(expected.tolist())
    as_bytes = lpips_per_frame((prediction + 1) * 127.5, (target + 1) * 127.5, (0.0, 255.0), net)
    assert as_bytes[0].tolist() == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("change", FAULTS)
def test_a_fault_costs_in_every_frame(change: Callable[[Tensor], Tensor]) -> None:
    target = clip()
    assert (psnr_per_frame(change(target), target, VIDEO_RANGE) < 47).all()
    assert (ssim_per_frame(change(target), target, VIDEO_RANGE) < 0.99999).all()


def test_the_faults_cost_what_can_be_worked_out_by_hand() -> None:
    target = clip()
    shift = 10 * math.log10(4 / ((4 / 255) ** 2 / 3))
    found = psnr_per_frame(shifted_red(target), target, VIDEO_RANGE)
    assert found.flatten().tolist() == pytest.approx([shift] * 6, abs=1e-3)
    halved = 10 * torch.log10(4 / (images(target) / 2 - 0.5).square().mean(dim=(1, 2, 3)))
    found = psnr_per_frame(half_contrast(target), target, VIDEO_RANGE)
    assert found.flatten().tolist() == pytest.approx(halved.tolist(), abs=1e-3)
    difference = (target[:, 0] - target[:, 2]).double().square().mean(dim=(2, 3))
    found = psnr_per_frame(swapped_channels(target), target, VIDEO_RANGE)
    assert found.numpy() == near((10 * torch.log10(4 / (2 * difference / 3))).tolist())
