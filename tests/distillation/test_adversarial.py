"""A distillation with a critic: whoever computes it, in whatever pieces, student and critic learn from every sample."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.data.targets import Targets
from nas.distillation.distill import Progress, distill
from nas.distillation.settings import DistillSettings
from search_spaces import Decoder
from tests.support.small_memory import limit, limit_backward
from tests.support.small_targets import build_student, make_targets, shards_of

SETTINGS = DistillSettings(
    steps=10,
    batch_size=4,
    learning_rate=1e-2,
    # Adam does not see the size of a gradient, but its averages do, if nothing has clipped it before.
    clip_norm=1e9,
    adversarial_weight=0.5,
    critic_rate_factor=0.1,
    report_every=5,
    checkpoint_every=5,
    precision="float32",
)


def train(
    path: Path,
    settings: DistillSettings = SETTINGS,
    student: Decoder | None = None,
    targets: Targets | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Everything that there is after the last step, as its checkpoint has it."""
    distill(student or build_student(), targets or make_targets(), settings, device="cpu", checkpoint=path, **options)
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    return saved


def tensors(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of student, average, heads and critic, what is replayed, and the averages of the optimizer."""
    found = {f"{module}.{name}": tensor for module, state in saved["modules"].items() for name, tensor in state.items()}
    for number, state in saved["optimizer"]["state"].items():
        found |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    return found


def assert_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """To the last bit."""
    mine, others = tensors(one), tensors(other)
    assert mine.keys() == others.keys()
    assert [name for name in mine if not torch.equal(mine[name], others[name])] == []
    assert (one["step"], one["curve"], one["rate"]) == (other["step"], other["curve"], other["rate"])


def assert_close(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Up to rounding."""
    mine, others = tensors(one), tensors(other)
    for name, tensor in mine.items():
        size = float(tensor.float().abs().max())
        assert float((tensor.float() - others[name].float()).abs().max()) <= 2e-3 * size + 1e-7, name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run that nothing interrupts."""
    return train(tmp_path_factory.mktemp("whole") / "run.pt")


def test_student_and_critic_make_every_step(whole: dict[str, Any]) -> None:
    parameters = sum(len(group["params"]) for group in whole["optimizer"]["param_groups"])
    states = whole["optimizer"]["state"]
    assert len(states) == parameters and len(whole["optimizer"]["param_groups"][-1]["params"]) == 7
    assert {float(state["step"]) for state in states.values()} == {SETTINGS.steps}


@pytest.mark.parametrize(("most", "late"), [(2, False), (3, False), (1, True)])
def test_smaller_batches_give_the_same_student_and_critic(
    most: int, late: bool, whole: dict[str, Any], tmp_path: Path
) -> None:
    """Memory that runs out in the middle of a step, too: what was done of it counts once."""
    student = build_student()
    (limit_backward if late else limit)(student.stem, most)
    assert_close(train(tmp_path / "run.pt", student=student), whole)


def test_a_run_that_was_cut_off_ends_the_same(whole: dict[str, Any], tmp_path: Path) -> None:
    """Bit by bit: student, critic, what it is shown again, and the optimizer."""

    def stop(progress: Progress) -> None:
        if progress.step == 7:
            raise KeyboardInterrupt

    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, report=stop)
    assert torch.load(path, weights_only=True)["step"] == 5
    assert_equal(train(path), whole)


def test_a_setback_restores_the_critic_too(tmp_path: Path) -> None:
    """To a checkpoint that goes on at half the rate as if nothing had happened."""
    path, targets = tmp_path / "run.pt", make_targets()
    memory = shards_of(targets, "train").loaded
    assert memory is not None
    good = memory[0]["frames"].clone()
    before: dict[str, Any] = {}

    def poison(progress: Progress) -> None:
        if progress.step == 7 and not before:
            before.update(torch.load(path, weights_only=True))
            memory[0]["frames"][:] = math.nan

    def cure(why: str) -> None:
        memory[0]["frames"][:] = good

    after = train(path, targets=targets, report=poison, setback=cure)
    assert before["step"] == 5
    torch.save({**before, "rate": 0.5}, tmp_path / "other.pt")
    assert_equal(train(tmp_path / "other.pt"), after)


def test_without_a_weight_there_is_no_critic(tmp_path: Path) -> None:
    """And a checkpoint is what it was before there were any."""
    plain = train(tmp_path / "run.pt", replace(SETTINGS, adversarial_weight=0.0, critic_rate_factor=0.7))
    assert plain["modules"].keys() == {"student", "average", "alignment"}
    assert not [name for name in plain["identity"] if "critic" in name or "adversarial" in name]
    assert replace(SETTINGS, critic_rate_factor=0.7).identity() != SETTINGS.identity()


def test_the_critic_changes_the_student_by_its_weight(whole: dict[str, Any], tmp_path: Path) -> None:
    weights = [tensors(whole)]
    for weight in (1e-9, 0.0):
        weights.append(tensors(train(tmp_path / f"{weight}.pt", replace(SETTINGS, adversarial_weight=weight))))
    strong, weak, none = (each["student.stem.conv.weight"] for each in weights)
    assert float((weak - none).abs().max()) < 1e-3 < float((strong - none).abs().max())


def test_where_the_video_is_the_target_it_is_what_is_real(tmp_path: Path) -> None:
    """Then nothing depends on the teacher's frames."""
    settings = replace(SETTINGS, teacher_weight=0.0, truth_weight=1.0, feature_weight=0.0, steps=2)
    found = []
    for name in ("as they are", "inverted"):
        targets = make_targets()
        memory = shards_of(targets, "train").loaded
        assert memory is not None
        memory[0]["frames"] *= 1 if name == "as they are" else -1
        found.append(
            [
                train(tmp_path / f"{name} {weight}.pt", replace(settings, teacher_weight=weight), targets=targets)
                for weight in (0.0, 1.0)
            ]
        )
    (plain, taught), (same, other) = found
    assert_equal(plain, same)
    assert not torch.equal(tensors(taught)["critic.layers.0.weight"], tensors(other)["critic.layers.0.weight"])


def test_beside_bfloat16_the_critic_is_in_float32(tmp_path: Path) -> None:
    saved = train(tmp_path / "run.pt", replace(SETTINGS, precision="bfloat16", steps=3))
    critic = saved["modules"]["critic"]
    assert {tensor.dtype for name, tensor in critic.items() if name.startswith("layers")} == {torch.float32}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in critic.values())
