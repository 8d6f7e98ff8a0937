"""I3D (Carreira and Zisserman 2017, arXiv 1705.07750), whose answers to videos rFVD is a distance between.

Its weights, trained on Kinetics-400, are the user's to bring: a state dict in PyTorch, with the names that its best
known port to PyTorch has (`Conv3d_1a_7x7.conv3d.weight`, `Mixed_3b.b1a.bn.running_mean`, ..., `logits.conv3d.bias`).
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from nas.metrics.frames import ValueRange
from nas.terminal.errors import UserError

FEATURES = 400
"""Numbers that it gives for a video: one for each class, before the softmax."""
LEAST_FRAMES = 9
"""Fewer frames are gone before its last layer."""
_SIDE = 224
"""Height and width in pixels that it sees."""

_MIXED: dict[str, tuple[int, tuple[int, int, int, int, int, int]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Channels that come in, and those of the convolutions 1x1; 1x1, 3x3; 1x1, 3x3; 1x1 behind the pooling."""

_POOLED = {"Mixed_4b": (3, 3, 3), "Mixed_5b": (2, 2, 2)}
"""What time and space are halved by before a part."""


class _Unit(nn.Module):
    """Convolution, and where it is not the last, normalisation by running statistics and ReLU."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int = 1, stride: int = 1, *, last: bool = False
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels_in, channels, kernel, stride, bias=last)
        self.bn = nn.Identity() if last else nn.BatchNorm3d(channels, eps=1e-3)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """As TensorFlow pads it, see `_padded`."""
        x = self.bn(self.conv3d(_padded(x, self.conv3d.kernel_size, self.conv3d.stride)))
        return x if self.last else torch.relu(x)


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels_in: int, channels: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = _Unit(channels_in, channels[0])
        self.b1a, self.b1b = _Unit(channels_in, channels[1]), _Unit(channels[1], channels[2], 3)
        self.b2a, self.b2b = _Unit(channels_in, channels[3]), _Unit(channels[3], channels[4], 3)
        self.b3b = _Unit(channels_in, channels[5])

    def forward(self, x: Tensor) -> Tensor:
        """The branches' channels, one after the other."""
        pooled = self.b3b(_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], dim=1)


class I3D(nn.Module):
    """Inception-v1 inflated to three axes, for RGB."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        for name, sizes in _MIXED.items():
            self.add_module(name, _Mixed(*sizes))
        self.logits = _Unit(1024, FEATURES, last=True)
        self.requires_grad_(False).eval()

    def forward(self, video: Tensor) -> Tensor:
        """`(b, 3, t, 224, 224)` in [-1, 1], at least 9 frames -> `(b, 400)`: answers before the softmax."""
        x = _pool(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in _MIXED:
            if name in _POOLED:
                x = _pool(x, _POOLED[name], (2, 2, 2))
            x = self.get_submodule(name)(x)
        answers: Tensor = self.logits(functional.avg_pool3d(x, (2, 7, 7), stride=1))
        return answers.mean(dim=(2, 3, 4))


def load_i3d(path: Path) -> I3D:
    """I3D with the weights of a file; nothing in it is run.

    Args:
        path: a state dict: safetensors, or what `torch.save` has written.

    Raises:
        UserError: it cannot be read, or is not a state dict of I3D.
    """
    expected = "expected the weights of I3D for RGB and Kinetics-400, as a state dict of PyTorch"
    model = I3D()
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        model.load_state_dict(state)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): {expected}") from error
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
    ) as error:
        raise UserError(f"{path} is something else ({' '.join(str(error).split())[:150]}): {expected}") from error
    return model


def for_i3d(video: Tensor, value_range: ValueRange) -> Tensor:
    """Frames `(b, 3, t, h, w)` as it sees them: resized to 224x224, bilinear, and brought to [-1, 1]."""
    low, high = value_range
    frames = rearrange(video.float(), "b c t h w -> (b t) c h w")
    frames = functional.interpolate(frames, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
    seen: Tensor = rearrange((frames - low) * (2 / (high - low)) - 1, "(b t) c h w -> b c t h w", b=len(video))
    return seen


def _padded(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """With zeros around it so that ceil(size / stride) positions are left, the odd one at the end."""
    pads: list[int] = []
    for size, side, step in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max(side - (step if size % step == 0 else size % step), 0)
        pads = [missing // 2, missing - missing // 2, *pads]
    return functional.pad(x, pads)


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return functional.max_pool3d(_padded(x, kernel, stride), kernel, stride)
