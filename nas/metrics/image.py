"""Image metrics for videos: PSNR, SSIM, LPIPS. Each frame is judged alone, a clip's number is the mean over its frames.

Videos are `(b, 3, t, h, w)`, RGB. `value_range` is the distance between black and white and is never guessed from the
data: 2.0 means values in [-1, 1], any other r means values in [0, r] (1.0 or 255.0). Nothing is rescaled by its own
minimum and maximum, so a change of contrast or brightness costs what it should. Values outside the range are an error:
clamp the output of a decoder first, as a player would.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

PSNR_CEILING = 100.0
"""PSNR in dB of frames that are equal, instead of infinity, which no mean survives."""

LpipsNet = Literal["alex", "vgg"]
"""Backbone of LPIPS: "alex" is what papers report, "vgg" what trainings use."""

_TOLERANCE = 1e-3
"""How far values may lie outside of the range, as a share of it (rounding in half precision)."""
_WINDOW, _SIGMA = 11, 1.5
_LPIPS_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""torchvision's files of the backbones; the last eight digits of a name begin the SHA-256 of the file."""


def psnr(prediction: Tensor, target: Tensor, value_range: float) -> Tensor:
    """Peak signal-to-noise ratio in dB of each clip, `(b,)`: mean over frames of the PSNR of a frame, at most 100.

    `psnr_per_frame` says more. The variant that pools the error of a clip before the logarithm is `psnr_pooled`.
    """
    return psnr_per_frame(prediction, target, value_range).mean(dim=1)


def psnr_per_frame(prediction: Tensor, target: Tensor, value_range: float) -> Tensor:
    """PSNR in dB of every frame, `(b, t)`, at most `PSNR_CEILING`.

    Raises:
        ValueError: shapes differ or are no videos, or values lie outside of `value_range`.
    """
    prediction, target = _checked(prediction, target, value_range)
    return _decibels((prediction - target).square().mean(dim=(1, 3, 4)), value_range)


def psnr_pooled(prediction: Tensor, target: Tensor, value_range: float) -> Tensor:
    """PSNR in dB of the mean squared error over all frames of a clip, `(b,)`: bad frames weigh more than in `psnr`."""
    prediction, target = _checked(prediction, target, value_range)
    return _decibels((prediction - target).square().mean(dim=(1, 2, 3, 4)), value_range)


def ssim(prediction: Tensor, target: Tensor, value_range: float) -> Tensor:
    """Structural similarity of each clip, `(b,)`, at most 1: mean over its frames of `ssim_per_frame`."""
    return ssim_per_frame(prediction, target, value_range).mean(dim=1)


def ssim_per_frame(prediction: Tensor, target: Tensor, value_range: float) -> Tensor:
    """Structural similarity of every frame, `(b, t)` (Wang et al. 2004), mean over R, G and B.

    Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only windows that lie inside of the frame.

    Raises:
        ValueError: as `psnr_per_frame`; or a frame is smaller than the window.
    """
    prediction, target = _checked(prediction, target, value_range)
    height, width = prediction.shape[-2:]
    if min(height, width) < _WINDOW:
        raise ValueError(f"SSIM needs frames of at least {_WINDOW}x{_WINDOW} pixels, got {height}x{width}")
    # The luminance term is meant for intensities from 0 on.
    low = _low(value_range)
    x, y = (rearrange(video - low, "b c t h w -> (b t c) 1 h w") for video in (prediction, target))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    frames = (luminance * structure).mean(dim=(1, 2, 3)).float()
    batch, channels = prediction.shape[:2]
    return rearrange(frames, "(b t c) -> b t c", b=batch, c=channels).mean(dim=2)


def lpips(prediction: Tensor, target: Tensor, value_range: float, net: LpipsNet = "alex") -> Tensor:
    """Learned perceptual distance of each clip, `(b,)`, 0 is equal: mean over its frames of `lpips_per_frame`."""
    return lpips_per_frame(prediction, target, value_range, net).mean(dim=1)


@torch.inference_mode()
def lpips_per_frame(prediction: Tensor, target: Tensor, value_range: float, net: LpipsNet = "alex") -> Tensor:
    """LPIPS v0.1 of every frame, `(b, t)` (Zhang et al. 2018, arXiv 1801.03924), by the `lpips` package.

    The network sees [-1, 1], whatever `value_range` is. Frames go through it one clip at a time.

    Raises:
        ValueError: as `psnr_per_frame`; or the weights of the backbone are not on this machine (`lpips_off`).
    """
    prediction, target = _checked(prediction, target, value_range)
    network = lpips_network(net).to(prediction.device)
    scale, low = 2 / value_range, _low(value_range)
    clips = []
    for clip in zip(prediction, target, strict=True):
        x, y = (rearrange((video - low) * scale - 1, "c t h w -> t c h w").float() for video in clip)
        clips.append(network(x, y).flatten())
    return torch.stack(clips)


def lpips_available(net: LpipsNet = "alex") -> bool:
    """Whether LPIPS can be computed here; `lpips_off` says why not."""
    return not lpips_off(net)


def lpips_off(net: LpipsNet = "alex") -> str:
    """Why LPIPS cannot be computed here, as a line to print; empty if it can. Nothing is ever downloaded.

    Only with the very weights that LPIPS was calibrated for may a distance bear its name, so the file is verified.
    """
    path = _backbone_path(net)
    if not path.is_file():
        return f"LPIPS off: weights of {path.name.split('-')[0]} not cached ({path})"
    return _mismatch(path)


@lru_cache(maxsize=2)
def lpips_network(net: LpipsNet = "alex") -> nn.Module:
    """The network of LPIPS in evaluation mode, frozen: frames `(n, 3, h, w)` in [-1, 1], twice -> `(n, 1, 1, 1)`.

    Raises:
        ValueError: the weights of the backbone are not on this machine.
    """
    if reason := lpips_off(net):
        raise ValueError(f"{reason}: put torchvision's file there, or set TORCH_HOME to the folder that has it")
    network = build_lpips(net, torch.load(_backbone_path(net), map_location="cpu", weights_only=True))
    return network.requires_grad_(False)


def build_lpips(net: LpipsNet, backbone: dict[str, Tensor]) -> nn.Module:
    """The network of the `lpips` package with its published heads on a backbone with torchvision's parameter names."""
    # Imported here: torchvision and lpips take seconds, which most uses of this module need not spend.
    from nas.machine.torchvision_operators import import_torchvision

    import_torchvision()
    from lpips import LPIPS

    # Built without weights and filled here: the package itself would go and download them.
    network: nn.Module = LPIPS(net=net, pnet_rand=True, verbose=False)
    slices = network.get_submodule("net")
    # "slice2.3.weight" of the package is torchvision's "features.3.weight".
    slices.load_state_dict({key: backbone[f"features.{key.split('.', 1)[1]}"] for key in slices.state_dict()})
    return network.eval()


def _backbone_path(net: LpipsNet) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_FILES[net]


@lru_cache
def _mismatch(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = path.stem.rsplit("-", 1)[1]
    if digest.startswith(expected):
        return ""
    return f"LPIPS off: {path} is damaged (its SHA-256 begins {digest[:8]}, not {expected})"


def _low(value_range: float) -> float:
    return -1.0 if value_range == 2.0 else 0.0


def _checked(prediction: Tensor, target: Tensor, value_range: float) -> tuple[Tensor, Tensor]:
    """Both in float64, for the differences of nearly equal frames; ValueError if they are not as declared."""
    if not value_range > 0:
        raise ValueError(f"value_range must be positive (2.0 for [-1, 1], 1.0 for [0, 1]), got {value_range}")
    if prediction.shape != target.shape or prediction.ndim != 5 or prediction.shape[1] != 3:
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise ValueError(f"expected two videos (b, 3, t, h, w) of one shape, got {shapes}")
    low = _low(value_range)
    slack = _TOLERANCE * value_range
    for name, video in (("prediction", prediction), ("target", target)):
        smallest, largest = (float(value) for value in video.detach().aminmax())
        # Written so that NaN fails too.
        if not (smallest >= low - slack and largest <= low + value_range + slack):
            raise ValueError(
                f"value_range {value_range:g} means values in [{low:g}, {low + value_range:g}], but the {name} "
                f"has [{smallest:.4g}, {largest:.4g}]: give the range it has, or clamp it"
            )
    # Apple's GPUs have no float64.
    dtype = torch.float32 if prediction.device.type == "mps" else torch.float64
    return prediction.to(dtype), target.to(dtype)


def _decibels(error: Tensor, value_range: float) -> Tensor:
    floor = value_range**2 * 10 ** (-PSNR_CEILING / 10)
    return (10 * torch.log10(value_range**2 / error.clamp(min=floor))).float()


def _blur(images: Tensor) -> Tensor:
    """`(n, 1, h, w)` -> `(n, 1, h - 10, w - 10)`: the Gaussian window, one axis after the other."""
    offsets = torch.arange(_WINDOW, dtype=images.dtype, device=images.device) - _WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    down = functional.conv2d(images, window.view(1, 1, -1, 1))
    return functional.conv2d(down, window.view(1, 1, 1, -1))
