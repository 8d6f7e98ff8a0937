"""Teachers and their targets on a GPU give what they give on the CPU, and leave it where it belongs."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.splits import open_clips
from nas.teachers import Teacher, load_teacher
from tests.support.videos import write_video

SETTINGS = TargetSettings(crop=32, num_frames=9, train_crops=2, score_crops=1, test_crops=1, taps=("mid_block",))


@pytest.fixture
def teacher(device: torch.device) -> Teacher:
    return load_teacher("wan-tiny", device=device)


def assert_alike(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> None:
    """On the CPU, finite, and as far apart as TensorFloat-32 makes them at most."""
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.device == theirs.device == torch.device("cpu") and torch.isfinite(mine.float()).all()
        distance = (mine.float() - theirs.float()).square().mean().sqrt() / theirs.float().std()
        assert distance < 0.01, f"{float(distance):.4f} of the spread"


def test_a_teacher_gives_the_same(teacher: Teacher, device: torch.device) -> None:
    video = 2 * torch.rand(2, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    reference = load_teacher("wan-tiny", device="cpu")
    latents = reference.encode(video)
    frames, features = reference.decode_with_features(latents, teacher.tap_names[:2])
    mine = teacher.encode(video)
    assert mine.device.type == device.type
    assert_alike([mine.cpu()], [latents])
    made, tapped = teacher.decode_with_features(latents, teacher.tap_names[:2])
    assert_alike([made.cpu(), *(tapped[name].cpu() for name in features)], [frames, *features.values()])
    assert next(teacher.model.parameters()).device.type == device.type


def test_targets_are_the_same_and_on_disk(teacher: Teacher, tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mkv", 12, 40, 48, number)
    clips = open_clips(tmp_path / "videos", SETTINGS.num_frames, cache=tmp_path)
    shards = []
    for name, each in (("mine", teacher), ("theirs", load_teacher("wan-tiny", device="cpu"))):
        open_targets(each, clips, SETTINGS, cache=tmp_path / name)
        (folder,) = (tmp_path / name / "targets").iterdir()
        shards.append({path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))})
    assert shards[0].keys() == shards[1].keys() and len(shards[0]) == 3
    for name, tensors in shards[0].items():
        assert_alike(tensors.values(), [shards[1][name][key] for key in tensors])
