"""LPIPS of videos, by the `lpips` package (Zhang et al. 2018, arXiv 1801.03924). Nothing is ever downloaded.

Videos and `value_range` are as for PSNR and SSIM: `(b, 3, t, h, w)`, RGB, with values in (low, high).
"""

import hashlib
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from nas.metrics.frames import ValueRange, checked_videos

LpipsNet = Literal["alex", "vgg"]
"""Backbone of LPIPS: "alex" is what papers report, "vgg" what trainings use."""

_LPIPS_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""torchvision's files of the backbones; the last eight digits of a name begin the SHA-256 of the file."""


def lpips(prediction: Tensor, target: Tensor, value_range: ValueRange, net: LpipsNet = "alex") -> Tensor:
    """Learned perceptual distance of each clip, `(b,)`, 0 is equal: mean over its frames of `lpips_per_frame`.

    Raises:
        ValueError: as `lpips_per_frame`.
    """
    return lpips_per_frame(prediction, target, value_range, net).mean(dim=1)


@torch.inference_mode()
def lpips_per_frame(prediction: Tensor, target: Tensor, value_range: ValueRange, net: LpipsNet = "alex") -> Tensor:
    """LPIPS v0.1 of every frame, `(b, t)`, 0 is equal.

    The network sees [-1, 1], whatever `value_range` is. Frames go through it one clip at a time.

    Raises:
        ValueError: as `psnr_per_frame`; or the weights of the backbone are not on this machine (`lpips_off`).
    """
    prediction, target = checked_videos(prediction, target, value_range)
    network = lpips_network(net).to(prediction.device)
    low, high = value_range
    scale = 2 / (high - low)
    clips = []
    for clip in zip(prediction, target, strict=True):
        x, y = (rearrange((video - low) * scale - 1, "c t h w -> t c h w").float() for video in clip)
        clips.append(network(x, y).flatten())
    return torch.stack(clips)


def lpips_available(net: LpipsNet = "alex") -> bool:
    """Whether LPIPS can be computed on this machine; `lpips_off` says why not."""
    return not lpips_off(net)


def lpips_off(net: LpipsNet = "alex") -> str:
    """Why LPIPS cannot be computed here, as a line to print; empty if it can. Nothing is ever downloaded.

    A distance is LPIPS only with the weights that LPIPS was calibrated for, so the file is verified.
    """
    path = _backbone_path(net)
    if not path.is_file():
        return f"LPIPS off: weights of {path.name.split('-')[0]} not cached ({path})"
    return _mismatch(path)


@lru_cache(maxsize=2)
def lpips_network(net: LpipsNet = "alex") -> nn.Module:
    """The frozen network of LPIPS: two batches of frames `(n, 3, h, w)` in [-1, 1] -> distances `(n, 1, 1, 1)`.

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
    with warnings.catch_warnings():
        # The package calls torchvision as older releases wanted to be called.
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated|Arguments other than a weight enum")
        network: nn.Module = LPIPS(net=net, pnet_rand=True, verbose=False)
    slices = network.get_submodule("net")
    # "slice2.3.weight" of the package is torchvision's "features.3.weight".
    slices.load_state_dict({key: backbone[f"features.{key.split('.', 1)[1]}"] for key in slices.state_dict()})
    return network.eval()


def _backbone_path(net: LpipsNet) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_FILES[net]


@lru_cache
def _mismatch(path: Path) -> str:
    """Empty if the file has the SHA-256 that its name ends with, else a line that says what it has."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = path.stem.rsplit("-", 1)[1]
    if digest.startswith(expected):
        return ""
    return f"LPIPS off: {path} is damaged (its SHA-256 begins {digest[:8]}, not {expected})"
