"""The training loop on a teacher that is a formula: the same again for a seed, and it learns."""

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import TimeContext, block_config
from nas.data.targets import Targets
from nas.distillation import recipes
from nas.distillation.distill import DistillResult, Progress, distill, score_student
from nas.distillation.preparation import training_dtype
from nas.distillation.schedule import average_decay
from nas.distillation.settings import DistillSettings
from nas.distillation.step import DivergedError
from nas.evaluation.baselines import linear_patches, nearest_linear_rgb
from nas.evaluation.quality import evaluate
from nas.latency import open_device
from nas.machine.files import read_json
from nas.study.run import Run
from nas.study.settings import RunSettings
from nas.study.short_distillation import ShortDistillation
from search_spaces import DecoderConfig
from tests.support.small_targets import BIDIRECTIONAL, CONFIG, SPEC, build_student, make_targets, shards_of

SETTINGS = DistillSettings(
    steps=12, batch_size=2, learning_rate=1e-2, report_every=5, checkpoint_every=5, precision="float32"
)
CPU = torch.device("cpu")


def run(settings: DistillSettings = SETTINGS, targets: Targets | None = None, **options: Any) -> DistillResult:
    return distill(build_student(), targets or make_targets(), settings, device="cpu", **options)


def interrupt_at(step: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Every bit of every tensor."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_seed_gives_the_same_weights_again() -> None:
    """Whatever else in the process uses random numbers, and whether the targets are in memory or not."""
    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2)
    second = run(report=lambda progress: torch.manual_seed(progress.step) and None)
    assert equal(weights_of(first.decoder), weights_of(second.decoder))
    assert (first.curve, first.score) == (second.curve, second.score)


def test_targets_on_disk_give_the_weights_of_those_in_memory(tmp_path: Path) -> None:
    on_disk = run(targets=make_targets(folder=tmp_path))
    assert equal(weights_of(run().decoder), weights_of(on_disk.decoder))


def test_another_seed_gives_other_weights() -> None:
    assert not equal(weights_of(run().decoder), weights_of(run(replace(SETTINGS, seed=1)).decoder))


def test_it_does_not_touch_the_random_numbers_of_others() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    run(replace(SETTINGS, steps=1))
    assert torch.equal(torch.rand(3), wanted)


def test_a_student_learns_and_beats_the_linear_baseline() -> None:
    targets = make_targets()
    before = score_student(build_student(), targets.split("score"), 4, CPU)
    settings = replace(SETTINGS, steps=120, batch_size=4, learning_rate=2e-2, report_every=30)
    result = run(settings, targets)
    baseline = evaluate(nearest_linear_rgb(targets), targets).psnr_teacher
    found = evaluate(torch.inference_mode()(result.decoder), targets).psnr_teacher
    assert baseline is not None and found is not None
    assert result.score > before + 6
    assert found > baseline + 4
    assert all(later > earlier for (_, earlier), (_, later) in itertools.pairwise(result.curve))


def test_it_is_told_the_teachers_features() -> None:
    """Alignment on or off is another run, and says which taps took part."""
    with_features, without = run(), run(replace(SETTINGS, feature_weight=0.0))
    assert with_features.taps == ("middle", "up") and with_features.taps_left_out == ("beyond",)
    assert without.taps == without.taps_left_out == ()
    assert not equal(weights_of(with_features.decoder), weights_of(without.decoder))


def test_it_may_learn_from_the_video_too() -> None:
    """With a large weight the student comes closer to the video, which has 90% of the teacher's contrast."""
    targets = make_targets()
    settings = replace(SETTINGS, steps=60, batch_size=4, learning_rate=2e-2)
    plain, truthful = run(settings, targets), run(replace(settings, truth_weight=20.0), targets)
    found = [evaluate(torch.inference_mode()(result.decoder), targets, "train") for result in (plain, truthful)]
    assert found[1].psnr_truth - (found[1].psnr_teacher or 0) > found[0].psnr_truth - (found[0].psnr_teacher or 0)


def test_report_comes_after_every_step_with_the_score_where_it_is_due() -> None:
    seen: list[Progress] = []
    result = run(report=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert {progress.steps for progress in seen} == {12}
    assert all(math.isfinite(progress.loss) and progress.loss > 0 for progress in seen)
    scores = [(progress.step, progress.score) for progress in seen if progress.score is not None]
    assert [step for step, _ in scores] == [5, 10, 12]
    assert scores == result.curve and scores[-1][1] == result.score
    assert result.seconds > 0


def test_the_score_of_the_last_step_is_there_once() -> None:
    assert [step for step, _ in run(replace(SETTINGS, steps=10)).curve] == [5, 10]


def test_what_is_returned_is_the_average_of_the_weights() -> None:
    decoder, targets = build_student(), make_targets()
    expected = build_student()
    expected.initialise_from_latent_statistics()
    average = weights_of(expected)

    def follow(progress: Progress) -> None:
        decay = average_decay(progress.step - 1, SETTINGS.ema_decay)
        for name, tensor in decoder.state_dict().items():
            average[name] += (1 - decay) * (tensor - average[name])

    result = distill(decoder, targets, SETTINGS, device="cpu", report=follow)
    assert result.decoder is decoder and not decoder.training
    for name, tensor in decoder.state_dict().items():
        assert torch.allclose(tensor, average[name], atol=1e-6), name
    assert result.score == score_student(decoder, targets.split("score"), 2, CPU)


def test_statistics_of_the_latents_are_folded_in_once(tmp_path: Path) -> None:
    """At a learning rate of next to nothing a run shows what it started from, in one go or in two."""
    still = replace(SETTINGS, learning_rate=1e-12, checkpoint_every=1)
    folded, plain = build_student(), build_student()
    folded.initialise_from_latent_statistics()
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        run(still, checkpoint=path, report=interrupt_at(7))
    results = {"whole": run(still), "resumed": run(still, checkpoint=path), "not fresh": run(still, fresh=False)}
    latents = make_targets().split("train").batch([0, 1]).latents
    for name, result in results.items():
        wanted = plain if name == "not fresh" else folded
        assert torch.allclose(result.decoder(latents), wanted(latents), atol=1e-5), name
    assert not torch.allclose(folded(latents), plain(latents), atol=1e-2)


def test_a_student_with_a_shortcut_starts_as_the_best_linear_map() -> None:
    """At a learning rate of next to nothing a run shows what it started from."""
    targets, still = make_targets(), replace(SETTINGS, learning_rate=1e-12, steps=1)
    config = replace(CONFIG, shortcut=block_config({"name": "linear_shortcut", "kernel_size": 1}))
    result = distill(build_student(config=config), targets, still, device="cpu")
    latents = targets.split("score").batch([0, 1]).latents
    assert torch.allclose(result.decoder(latents), linear_patches(targets)(latents), atol=1e-4)
    colours = evaluate(nearest_linear_rgb(targets), targets, "score").psnr_teacher
    assert colours is not None and result.score > colours + 1


def test_folding_makes_latents_look_normalised() -> None:
    """A folded stem on raw latents is the plain one on normalised latents, where it sees no padding."""
    folded, plain = build_student(), build_student()
    folded.initialise_from_latent_statistics()
    raw = make_targets().split("train").batch([0]).latents
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (SPEC.mean, SPEC.std))
    pairs = ((folded, raw), (plain, (raw - mean) / std))
    found = [decoder.stem(latents, TimeContext(1, "causal", drop_leading=True)) for decoder, latents in pairs]
    inside = [features[:, :, 2, 1:-1, 1:-1] for features in found]
    assert inside[0].numel() > 0 and torch.allclose(inside[0], inside[1], atol=1e-5)


def test_bfloat16_trains_as_float32_does() -> None:
    """Weights stay in float32; the rounding of the convolutions shows but costs little."""
    settings = replace(SETTINGS, steps=60, batch_size=4, learning_rate=2e-2)
    results = {precision: run(replace(settings, precision=precision)) for precision in ("float32", "bfloat16")}
    weights = {precision: weights_of(result.decoder) for precision, result in results.items()}
    assert not equal(weights["float32"], weights["bfloat16"])
    assert all(tensor.dtype == torch.float32 for tensor in weights["bfloat16"].values())
    assert results["bfloat16"].score == pytest.approx(results["float32"].score, abs=1.0)
    assert results["bfloat16"].curve[-1][1] > results["bfloat16"].curve[0][1] + 3


def test_the_number_format_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_dtype("float32", CPU) == torch.float32
    assert training_dtype("bfloat16", CPU) == torch.bfloat16
    units: dict[str, bool] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert training_dtype("auto", CPU) == torch.float32
    for unit in ("amx_bf16", "avx512_bf16"):
        units.clear()
        units[unit] = True
        assert training_dtype("auto", CPU) == torch.bfloat16


def test_a_student_that_looks_ahead_is_trained_the_same_way() -> None:
    result = distill(build_student(config=BIDIRECTIONAL), make_targets(), SETTINGS, device="cpu")
    assert result.taps == ("middle", "up") and result.score > result.curve[0][1]


def test_without_weights_of_lpips_it_says_so_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    result = run(replace(SETTINGS, perceptual_weight=1.0))
    assert result.perceptual.startswith("LPIPS off: weights of vgg16 not cached")
    assert run().perceptual == "LPIPS off: its weight is 0"
    assert equal(weights_of(result.decoder), weights_of(run().decoder))


class Off(nn.Module):
    """A student that is always wrong by the same amount, times the number of the sample."""

    def __init__(self, targets: Targets, by: list[float]) -> None:
        super().__init__()
        self.frames = targets.split("score").batch(range(len(by))).frames.clamp(-0.5, 0.5)
        self.by = by
        self.done = 0

    def forward(self, latents: Tensor) -> Tensor:
        """The teacher's frames, made worse."""
        rows = [self.frames[self.done + row] + self.by[self.done + row] for row in range(len(latents))]
        self.done += len(latents)
        return torch.stack(rows)


def test_the_score_is_the_mean_over_samples_in_decibels() -> None:
    """With a value range of 2.0, an error of 0.2 everywhere is 20 dB; a smaller last batch weighs by its samples."""
    targets = make_targets(score=3)
    memory = shards_of(targets, "score").loaded
    assert memory is not None
    memory[0]["frames"] = memory[0]["frames"].float().clamp(-0.5, 0.5)
    student = Off(targets, [0.2, 0.02, 0.002])
    assert score_student(student, targets.split("score"), 2, CPU) == pytest.approx((20 + 40 + 60) / 3, abs=0.01)


def test_frames_that_are_no_numbers_have_no_score() -> None:
    targets = make_targets()
    with pytest.raises(DivergedError, match="the student's frames are not finite"):
        score_student(Off(targets, [0.0, math.nan]), targets.split("score"), 2, CPU)


def test_frames_beyond_white_are_scored_as_white() -> None:
    decoder, targets = build_student(), make_targets()
    louder = copy.deepcopy(decoder)
    with torch.no_grad():
        for parameter in louder.head.parameters():
            parameter.mul_(1e4)
    score = score_student(louder, targets.split("score"), 2, CPU)
    assert 3 < score < score_student(decoder, targets.split("score"), 2, CPU)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="the train split of the targets is empty"):
        run(targets=make_targets(train=0))


def test_a_candidate_is_trained_by_a_short_distillation(tmp_path: Path) -> None:
    """Job by job as in one go; it leaves what it found in the folder of the trial, and no checkpoint."""
    settings = RunSettings("formula", None, None, "30ms", "iphone-16-pro", 64, 64, 5, "hybrid", steps=12, seed=0)
    search = ShortDistillation(Run(tmp_path, settings), make_targets(), open_device("iphone-16-pro"), CPU, recipes.CPU)
    candidate = search.candidate(CONFIG)
    first = candidate.work(4)()
    assert [step for step, _ in first.curve] == [1, 2, 3, 4] and not first.failure
    candidate.record(3, first)
    assert DecoderConfig.from_dict(read_json(tmp_path / "trials" / "3" / "config.json")) == CONFIG
    assert read_json(tmp_path / "trials" / "3" / "result.json")["score_db"] == first.curve[-1][1]
    whole = candidate.work(12)()
    assert whole.curve[:4] == first.curve and whole.curve[-1][0] == 12, "the second job goes on where the first ended"
    (tmp_path / "other").mkdir()
    undisturbed = replace(search, run=Run(tmp_path / "other", settings)).candidate(CONFIG).work(12)()
    assert undisturbed.curve == whole.curve
    checkpoints = list((tmp_path / "training").iterdir())
    assert len(checkpoints) == 1
    candidate.forget()
    assert not checkpoints[0].exists()
    assert search.candidate(CONFIG).costs.parameters == sum(
        parameter.numel() for parameter in build_student().parameters()
    )
