"""Files of latents: every kind is read as it is, and what cannot be used is refused in one line."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nas.data.latents_file import find_latents, read_latents
from tests.support.errors import refusal
from tests.support.small_decoders import SPECS, make_latents

SPEC = SPECS["16ch-4x8x8-leading"]
LATENTS = make_latents(SPEC, frames=3, height=2, width=4, batch=2)


def write(path: Path, content: Any) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content.numpy() if isinstance(content, Tensor) else content)
    elif path.suffix == ".pt":
        torch.save(content, path)
    else:
        save_file(content if isinstance(content, dict) else {"latents": content}, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".pt"])
def test_every_kind_of_file_is_read_as_it_is(suffix: str, tmp_path: Path) -> None:
    assert torch.equal(read_latents(write(tmp_path / f"a{suffix}", LATENTS), SPEC), LATENTS)
    one = read_latents(write(tmp_path / f"b{suffix}", LATENTS[0].half()), SPEC)
    assert one.dtype == torch.float32 and torch.equal(one, LATENTS[:1].half().float())


def test_a_tensor_of_another_name_is_taken_if_it_is_the_only_one(tmp_path: Path) -> None:
    assert torch.equal(read_latents(write(tmp_path / "a.safetensors", {"z": LATENTS}), SPEC), LATENTS)
    both = {"latents": LATENTS, "z": LATENTS + 1}
    assert torch.equal(read_latents(write(tmp_path / "b.safetensors", both), SPEC), LATENTS)
    assert torch.equal(read_latents(write(tmp_path / "c.pt", {"z": LATENTS}), SPEC), LATENTS)
    assert torch.equal(read_latents(write(tmp_path / "d.npy", LATENTS.numpy().astype(">f4")), SPEC), LATENTS)


class Foreign:
    """An object that only unpickling would bring back."""


UNUSABLE: dict[str, tuple[str, Any, list[str]]] = {
    "another width": ("a.npy", LATENTS[:, :8], ["shape (2, 8, 3, 2, 4)", "(b, 16, t, h, w)"]),
    "an image": ("a.npy", LATENTS[:, :, 0, 0], ["shape (2, 16, 4)", "(16, t, h, w)"]),
    "six axes": ("a.safetensors", LATENTS[None], ["shape (1, 2, 16, 3, 2, 4)"]),
    "no frame": ("a.npy", LATENTS[:, :, :0], ["shape (2, 16, 0, 2, 4)"]),
    "not a number": ("a.safetensors", LATENTS * math.nan, ["not finite"]),
    "beyond half precision": ("a.pt", (LATENTS * 1e6).half(), ["not finite"]),
    "whole numbers": ("a.npy", LATENTS.int(), ["torch.int32", "floating-point"]),
    "several tensors": ("a.safetensors", {"x": LATENTS, "y": LATENTS + 1}, ["holds x, y", "'latents'"]),
    "a list": ("a.pt", [LATENTS], ["no tensor"]),
    "an object": ("a.pt", Foreign(), ["cannot be read", "Weights only load failed"]),
    "objects in an array": ("a.npy", np.array([Foreign()], dtype=object), ["cannot be read", "allow_pickle"]),
    "nonsense": ("a.safetensors", b"nonsense", ["cannot be read"]),
    "nonsense for NumPy": ("a.npy", b"nonsense", ["cannot be read"]),
    "nonsense for PyTorch": ("a.pt", b"nonsense", ["cannot be read"]),
    "nothing": ("a.pt", b"", ["cannot be read"]),
    "another kind of file": ("a.bin", b"nonsense", [".safetensors, .npy, .pt"]),
}


@pytest.mark.parametrize("row", UNUSABLE)
def test_what_cannot_be_used_is_refused(row: str, tmp_path: Path) -> None:
    name, content, expected = UNUSABLE[row]
    path = write(tmp_path / name, content)
    message = refusal(lambda: read_latents(path, SPEC))
    assert str(path) in message and all(text in message for text in expected), message


def test_a_folder_gives_all_files_of_latents_in_it(tmp_path: Path) -> None:
    assert "does not exist" in refusal(lambda: find_latents(tmp_path / "nothing"))
    assert "cannot be read" in refusal(lambda: read_latents(tmp_path / "nothing.npy", SPEC))
    assert f"no latents in {tmp_path}" in refusal(lambda: find_latents(tmp_path))
    paths = [write(tmp_path / name, LATENTS) for name in ("b.npy", "a.safetensors")]
    (tmp_path / "notes.txt").write_text("mine")
    assert find_latents(tmp_path) == sorted(paths) and find_latents(paths[0]) == [paths[0]]
