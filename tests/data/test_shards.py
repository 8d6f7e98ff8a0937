"""Shards of targets: files of tensors that give back what was written, or are seen to be damaged."""

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nas.data.settings import TargetSettings
from nas.data.shards import is_whole, read_row, read_shard, write_shard

SETTINGS = TargetSettings(crop=16, num_frames=5, train_crops=2, score_crops=1, test_crops=1, taps=())
NUM_VIDEOS = 6
"""4 to train on, 1 to score on, 1 to test on."""
NUM_CROPS = 10
CROP_BYTES = 4 * 16 * 8 + (2 + 1) * 3 * 5 * 256


def some_tensors() -> dict[str, Tensor]:
    return {
        "latents": torch.randn(3, 2),
        "frames": torch.randn(3, 5).half(),
        "truth": torch.arange(18, dtype=torch.uint8).view(3, 6),
    }


def test_shards_give_back_what_was_written(tmp_path: Path) -> None:
    tensors = some_tensors()
    path = tmp_path / "new" / "folder" / "a.safetensors"
    write_shard(path, tensors)
    assert is_whole(path, check_data=True) and is_whole(path, check_data=False)
    found = read_shard(path)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in tensors.items()
    }
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(read_row(path, 1)[name], tensor[1])
    assert os.listdir(path.parent) == ["a.safetensors"]  # noqa: PTH208


def test_no_flipped_bit_and_no_missing_end_is_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_shard(path, some_tensors())
    data = path.read_bytes()
    for position in range(len(data)):
        spoilt = bytearray(data)
        spoilt[position] ^= 1 << position % 8
        path.write_bytes(spoilt)
        assert not is_whole(path, check_data=True), position
    for length in (*range(0, len(data), 13), len(data) - 1):
        path.write_bytes(data[:length])
        assert not is_whole(path, check_data=False), length
    path.write_bytes(data)
    assert is_whole(path, check_data=True)


def test_other_files_are_no_shards(tmp_path: Path) -> None:
    assert not is_whole(tmp_path / "nowhere.safetensors", check_data=False)
    assert not is_whole(tmp_path, check_data=False)
    save_file(some_tensors(), tmp_path / "foreign.safetensors")
    assert not is_whole(tmp_path / "foreign.safetensors", check_data=False)
