"""Teaching, training and scoring on a device that is not the CPU: no tensor is left behind on the other one.

PyTorch's fake tensors refuse operations on tensors of two devices. The other device is "meta", as a PyTorch without
CUDA cannot differentiate what it takes to be on a GPU; nothing is computed, so numbers are not looked at.
"""

from contextlib import closing
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode

from nas.data import targets as targets_module
from nas.distillation.activations import Portion
from nas.distillation.checkpoint import update_average
from nas.distillation.feed import Feed
from nas.distillation.losses import FeatureAlignment
from nas.distillation.preparation import Prepared, prepare
from nas.distillation.settings import DistillSettings
from nas.distillation.step import find_fitting_gradient
from nas.machine.processes import ALONE
from nas.metrics import VIDEO_RANGE, psnr, ssim
from nas.teachers import Teacher, load_teacher
from search_spaces import Decoder
from tests.support.small_targets import build_student, make_targets

THERE = torch.device("meta")
SETTINGS = DistillSettings(
    steps=4,
    batch_size=2,
    truth_weight=0.5,
    motion_weight=1.0,
    detail_weight=1.0,
    texture_weight=1.0,
    precision="float32",
)


def prepared() -> Prepared:
    return prepare(build_student(), make_targets(), SETTINGS, THERE, None, fresh=False)


def train(run: Prepared, *, recompute: bool = False) -> Tensor:
    """A step, but for what looks at numbers."""
    samples = run.targets.split("train")
    feed = Feed(samples, SETTINGS.batch_size, 0, SETTINGS.steps, ALONE, THERE)
    with FakeTensorMode(allow_non_fake_inputs=True), closing(feed):
        loss, _ = find_fitting_gradient(run, feed, Portion(1, recompute))
        nn.utils.clip_grad_norm_(run.state.modules["student"].parameters(), 1.0)
        run.state.optimizer.step()
        update_average(run.state.modules["average"], run.state.modules["student"], 0.9)
    return loss


def teach(teacher: Teacher) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Latents, frames and features of a video that is on the CPU."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        latents = teacher.encode(torch.zeros(1, 3, 5, 32, 32))
        return latents, *teacher.decode_with_features(latents.cpu(), teacher.tap_names[:2])


@pytest.fixture
def teacher() -> Teacher:
    """wan-tiny there; of its weights only the shapes."""
    found = load_teacher("wan-tiny", None, "cpu")
    found.device = THERE
    found.__dict__["model"] = found.skeleton
    return found


@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_stays_on_its_device(recompute: bool) -> None:
    run = prepared()
    assert train(run, recompute=recompute).device == THERE
    gradients = [each.grad for each in run.state.modules["student"].parameters()]
    assert all(each is not None and each.device == THERE for each in gradients)
    assert {each.device for module in run.state.modules.values() for each in module.state_dict().values()} == {THERE}


def test_scores_stay_on_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the look at whether values are in their range."""
    monkeypatch.setattr("nas.metrics.frames._check_values", lambda *asked: None)
    run = prepared()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        batch = run.targets.split("score").batch([0, 1], THERE)
        frames = run.state.modules["average"](batch.latents)
        found = [metric(frames, batch.frames, VIDEO_RANGE) for metric in (psnr, ssim)]
    assert [each.device for each in found] == [THERE, THERE]


def test_a_teacher_computes_on_its_device(teacher: Teacher) -> None:
    latents, frames, features = teach(teacher)
    assert {each.device for each in (latents, frames, *features.values())} == {THERE}


def left_behind(self: Any, *_: Any, **__: Any) -> Any:
    """In place of a move to a device."""
    return self


@pytest.mark.parametrize("what", ["student", "heads", "batch", "video"])
def test_what_is_left_behind_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch, teacher: Teacher) -> None:
    """Each of the moves is needed: without it the tests above fail."""
    if what == "batch":
        stack = targets_module.stack_rows
        monkeypatch.setattr(targets_module, "stack_rows", lambda rows, device: stack(rows, "cpu"))
    elif what == "video":
        monkeypatch.setattr(Teacher, "_clips", lambda self, batch: torch.split(batch, 1))
    else:
        monkeypatch.setattr({"student": Decoder, "heads": FeatureAlignment}[what], "to", left_behind)
    with pytest.raises((FakeTensorDeviceMismatchError, RuntimeError), match="same device"):
        teach(teacher) if what == "video" else train(prepared())
