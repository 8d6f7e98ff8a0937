"""Targets that hold no frames of the teacher: for who trains on the video itself, or aligns features alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.data.clips import Clip
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.shards import read_shard
from nas.data.splits import ClipSet
from nas.distillation.distill import distill
from nas.distillation.settings import DistillSettings
from nas.teachers import Teacher, load_teacher
from nas.terminal.errors import UserError
from search_spaces import PRESETS, Decoder, adapt
from tests.support.small_targets import shards_of
from tests.support.videos import write_video


def clips_in(folder: Path) -> ClipSet:
    path = folder / "clip.mkv"
    write_video(path, 9, 36, 44)
    return ClipSet((Clip(path, 0, 9),), (Clip(path, 2, 5),), (), "here")


def settings(taps: tuple[str, ...], frames: bool) -> TargetSettings:
    return TargetSettings(32, 5, 2, 1, 0, taps, frames=frames)


def parts_that_run(teacher: Teacher) -> set[str]:
    """Filled in with the taps and the parts after them, as they run."""
    ran: set[str] = set()
    for name in (*teacher.tap_names, *teacher.head):
        module = teacher.model.get_submodule("decoder").get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    return ran


@pytest.mark.parametrize("taps", [(), ("mid_block",), ("mid_block", "up_blocks.0")])
def test_the_teacher_decodes_no_further_than_to_the_last_tap(taps: tuple[str, ...], tmp_path: Path) -> None:
    teacher, clips = load_teacher("wan-tiny"), clips_in(tmp_path)
    with_frames = open_targets(teacher, clips, settings(taps, True), cache=tmp_path)
    ran = parts_that_run(teacher)
    targets = open_targets(teacher, clips, settings(taps, False), cache=tmp_path)
    assert ran == set(taps)

    kept: dict[str, Tensor] = read_shard(shards_of(targets, "train").shards[0])
    everything = read_shard(shards_of(with_frames, "train").shards[0])
    assert set(everything) - set(kept) == {"frames"}
    assert all(torch.equal(tensor, everything[name]) for name, tensor in kept.items())
    batch = targets.split("train").batch([0, 1])
    assert batch.truth.shape == (2, 3, 5, 32, 32) and set(batch.features) == set(taps)
    with pytest.raises(UserError, match=r"^these targets hold no frames of the teacher: compute them with .*$"):
        _ = batch.frames


def test_distillation_towards_frames_that_are_not_there_is_refused(tmp_path: Path) -> None:
    """Not trained on something else instead."""
    teacher = load_teacher("wan-tiny")
    targets = open_targets(teacher, clips_in(tmp_path), settings((), False), cache=tmp_path)
    student = Decoder(adapt(PRESETS["turbo_vaed_hunyuan"], teacher.spec, 32))
    with pytest.raises(UserError, match="these targets hold no frames of the teacher"):
        distill(student, targets, DistillSettings(steps=1, truth_weight=1.0), device="cpu")
