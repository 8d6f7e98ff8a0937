"""Latents in files: what a diffusion model or somebody's encoder has made. Reading one runs nothing that is in it."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nas.machine.reading import reading
from nas.terminal.errors import UserError
from search_spaces import LatentSpec

EXTENSIONS = (".safetensors", ".npy", ".pt")
"""What files of latents end in."""

_DAMAGED = (
    *(SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError),
)
"""What readers raise for a file that is cut off, of another kind, or holds more than tensors."""


def find_latents(path: Path) -> list[Path]:
    """The file itself, or all files of latents in a folder, sorted.

    Raises:
        UserError: nothing is there, or no such file in the folder.
    """
    expected = f"expected a file of latents or a folder of them ({', '.join(EXTENSIONS)})"
    with reading(path, expected):
        if not path.exists():
            raise UserError(f"{path} does not exist: {expected}")
        if not path.is_dir():
            return [path]
        files = sorted(each for each in path.iterdir() if each.suffix.lower() in EXTENSIONS and each.is_file())
    if not files:
        raise UserError(f"no latents in {path}: {expected}")
    return files


def read_latents(path: Path, spec: LatentSpec) -> Tensor:
    """The latents of a file, float32 `(b, c, t, h, w)`, with the values that it has: nothing is scaled.

    Args:
        path: safetensors or PyTorch with one tensor or one that is named "latents", or a NumPy array; of shape
            `(b, c, t, h, w)` or `(c, t, h, w)`.
        spec: of what they are to be decoded by.

    Raises:
        UserError: it cannot be read, has another number of channels or axes, or numbers that are not finite.
    """
    expected = f"expected latents (b, {spec.channels}, t, h, w) or ({spec.channels}, t, h, w)"
    if path.suffix.lower() not in EXTENSIONS:
        raise UserError(f"{path} is no file of latents: expected one that ends in {', '.join(EXTENSIONS)}")
    try:
        with reading(path, expected):
            found = _READERS[path.suffix.lower()](path)
        latents = _only_tensor(found, path, expected)
        if not (latents.is_floating_point() and latents.layout == torch.strided):
            raise UserError(f"{path} has latents of type {latents.dtype}: {expected} of floating-point numbers")
    except UserError:
        raise
    except _DAMAGED as error:
        text = " ".join(str(error).split())[:200] or "it ends too early"
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {text}): {expected}") from error
    shape = tuple(latents.shape)
    if latents.ndim not in (4, 5) or shape[-4] != spec.channels or latents.numel() == 0:
        raise UserError(f"{path} has latents of shape {shape}: {expected}")
    latents = latents.float() if latents.ndim == 5 else latents.float()[None]
    if not bool(latents.isfinite().all()):
        raise UserError(f"{path} has latents that are not finite (NaN or infinity): make them again")
    return latents.contiguous()


def _read_numpy(path: Path) -> Any:
    array = np.load(path, allow_pickle=False)
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


_READERS = {".safetensors": load_file, ".npy": _read_numpy, ".pt": _read_torch}
"""How each kind of file is read; none of them unpickles objects."""


def _only_tensor(found: Any, path: Path, expected: str) -> Tensor:
    tensors = found if isinstance(found, dict) else {"latents": found}
    name = "latents" if "latents" in tensors else next(iter(tensors), "")
    if not isinstance(tensors.get(name), Tensor) or (name != "latents" and len(tensors) > 1):
        what = (
            f"holds {', '.join(map(str, list(tensors)[:5])) or 'nothing'}" if isinstance(found, dict) else "no tensor"
        )
        raise UserError(f"{path} {what}: {expected} as its only tensor or under the name 'latents'")
    latents: Tensor = tensors[name]
    return latents
