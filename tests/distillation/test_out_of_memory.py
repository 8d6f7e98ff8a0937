"""Memory that runs out while a student is trained or scored: smaller batches, the same weights, or a clear outcome."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from blocks import get_block
from nas.distillation import recipes
from nas.distillation.distill import DistillResult, Progress, distill, score_student
from nas.distillation.settings import DistillSettings
from nas.evaluation.quality import evaluate
from nas.latency import open_device
from nas.machine.batches import DoesNotFitError
from nas.machine.files import read_json
from nas.study.outcomes import Outcome
from nas.study.run import Run
from nas.study.settings import RunSettings
from nas.study.short_distillation import ShortDistillation
from nas.study.trial import Training, advance_trial, begin_trial
from search_spaces import Decoder
from tests.support.small_memory import limit, limit_backward, limited, of_a_cpu, of_a_gpu
from tests.support.small_targets import CONFIG, build_student, make_targets

SETTINGS = DistillSettings(steps=6, batch_size=4, learning_rate=1e-2, report_every=3, precision="float32")
CPU = torch.device("cpu")


def train(student: Decoder, settings: DistillSettings = SETTINGS, **options: Any) -> tuple[DistillResult, list[float]]:
    """The result and the loss of every step."""
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.loss)

    return distill(student, make_targets(score=5), settings, device="cpu", report=report, **options), losses


@cache
def undisturbed(settings: DistillSettings) -> tuple[DistillResult, list[float]]:
    """What there is if memory never runs out."""
    return train(build_student(), settings)


def difference(one: nn.Module, other: nn.Module) -> float:
    """The largest of any weight."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def forward(student: Decoder, most: int) -> None:
    limit(student.stem, most)


def forward_on_a_cpu(student: Decoder, most: int) -> None:
    limit(student.stem, most, of_a_cpu)


def backward(student: Decoder, most: int) -> None:
    """Late: the gradients of all parts after the stem are in their parameters already."""
    limit_backward(student.stem, most)


@pytest.mark.parametrize("run_out", [forward, forward_on_a_cpu, backward])
@pytest.mark.parametrize(("batch_size", "most"), [(4, 2), (4, 1), (3, 2)])
def test_smaller_batches_give_the_same_weights(
    run_out: Callable[[Decoder, int], None], batch_size: int, most: int
) -> None:
    """Up to rounding, also where they are not equally large; far less than a step moves the weights, 1e-2."""
    settings = replace(SETTINGS, batch_size=batch_size)
    whole, losses = undisturbed(settings)
    student = build_student()
    run_out(student, most)
    halved, others = train(student, settings)
    assert others == pytest.approx(losses, rel=1e-5) and halved.score == pytest.approx(whole.score, abs=1e-3)
    assert difference(halved.decoder, whole.decoder) < 1e-4 < difference(build_student(), whole.decoder)


def test_what_fits_is_remembered_until_the_end() -> None:
    """Of four one step fails, then steps are of two and two; scores of five samples are tried anew each time."""
    student = build_student()
    asked = limit(student.stem, 2)
    train(student)
    step, score = [2, 2], [4, 2, 2, 1]
    assert asked == [4, *step * 3, *score, *step * 3, *score]


def test_nothing_of_a_step_that_failed_is_kept_for_the_next_attempt() -> None:
    """Features, whose gradient was on its way when memory ran out, are gone without waiting for a collection."""
    student = build_student()
    limit_backward(student.stem, 1)
    kept: list[weakref.ref[Tensor]] = []

    def watch(part: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        assert not any(reference() is not None for reference in kept)
        kept.append(weakref.ref(out))

    student.get_submodule("stages.0.parts.0").register_forward_hook(watch)
    gc.disable()
    try:
        train(student, replace(SETTINGS, steps=1))
    finally:
        gc.enable()
    assert len(kept) > 6, "one of four samples, one of two, four of one, and the score"


def test_all_parts_of_the_loss_are_means_over_samples() -> None:
    """That to the video and that of features, too."""
    settings = replace(SETTINGS, truth_weight=1.0, feature_weight=1.0)
    whole, losses = undisturbed(settings)
    student = build_student()
    limit(student.stem, 2)
    halved, others = train(student, settings)
    assert others == pytest.approx(losses, rel=1e-5) and difference(halved.decoder, whole.decoder) < 1e-4


def test_a_student_of_which_no_sample_fits_is_told() -> None:
    student = build_student()
    asked = limit(student.stem, 0)
    with pytest.raises(DoesNotFitError, match=r"^cpu is out of memory with a single sample$"):
        train(student)
    assert asked == 2 * [4, 2, 1], "as ever, and with parts recomputed"


def test_other_errors_are_not_taken_for_it() -> None:
    student = build_student()

    def wrong(part: nn.Module, args: tuple[Any, ...]) -> None:
        raise RuntimeError("Given groups=1, expected input to have 4 channels")

    student.stem.register_forward_pre_hook(wrong)
    with pytest.raises(RuntimeError, match="expected input to have 4 channels"):
        train(student)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_scores_and_evaluations_do_not_depend_on_the_batch(most: int) -> None:
    targets = make_targets(score=5, test=5)
    student = build_student().eval()
    score, quality = score_student(student, targets.split("score"), 4, CPU), evaluate(no_gradient(student), targets)
    limit(student.stem, most)
    done: list[tuple[int, int]] = []
    again = evaluate(no_gradient(student), targets, progress=lambda *seen: done.append(seen))
    assert score_student(student, targets.split("score"), 4, CPU) == pytest.approx(score, abs=1e-4)
    assert again.to_truth.ssim == pytest.approx(quality.to_truth.ssim, abs=1e-5)
    assert again.psnr_teacher == pytest.approx(quality.psnr_teacher, abs=1e-4)
    assert done[-1] == (5, 5) and len(done) > 2
    limit(student.stem, 0)
    for judge in (lambda: score_student(student, targets.split("score"), 4, CPU), lambda: evaluate(student, targets)):
        with pytest.raises(DoesNotFitError, match="with a single sample"):
            judge()


def no_gradient(student: nn.Module) -> Callable[[Tensor], Tensor]:
    decode: Callable[[Tensor], Tensor] = torch.inference_mode()(student)
    return decode


def test_a_trial_that_does_not_fit_has_an_outcome_and_the_study_goes_on(tmp_path: Path) -> None:
    """It says what to lower; the next candidate is trained."""
    settings = RunSettings("formula", None, None, "30ms", "iphone-16-pro", 64, 64, 5, "hybrid", steps=12, seed=0)
    search = ShortDistillation(Run(tmp_path, settings), make_targets(), open_device("iphone-16-pro"), CPU, recipes.CPU)
    study, outcomes = optuna.create_study(direction="maximize"), []
    for most in (0, 8):
        begun = begin_trial(study, study.ask(), search.candidate(CONFIG), ())
        assert isinstance(begun, Training)
        with limited(get_block("conv3d_stem"), most):
            segment = begun.candidate.work(12)()
        outcomes.append(advance_trial(study, begun, segment, 12))
    failed, scored = outcomes
    assert isinstance(failed, Outcome) and failed.status == "failed" and failed.score is None
    assert failed.detail == "cpu is out of memory with a single sample: lower --max-memory or --workers"
    assert read_json(tmp_path / "trials" / "0" / "result.json")["failure"] == failed.detail
    assert isinstance(scored, Outcome) and scored.status == "scored"
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE"]
    assert not list((tmp_path / "training").iterdir()), "no checkpoint is left"


def test_memory_that_runs_out_beside_the_batch_is_an_outcome_too(tmp_path: Path) -> None:
    """In the optimizer, say, where no smaller batch helps."""
    settings = RunSettings("formula", None, None, "30ms", "iphone-16-pro", 64, 64, 5, "hybrid", steps=12, seed=0)
    search = ShortDistillation(Run(tmp_path, settings), make_targets(), open_device("iphone-16-pro"), CPU, recipes.CPU)
    hook = register_optimizer_step_pre_hook(lambda *given: of_a_gpu())
    try:
        segment = search.candidate(CONFIG).work(12)()
    finally:
        hook.remove()
    assert segment.failure == "cpu is out of memory: lower --max-memory or --workers"
