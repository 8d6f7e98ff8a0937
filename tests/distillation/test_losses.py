"""What a student is punished for, on numbers that are known beforehand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks import get_block
from nas.data.targets import TargetBatch
from nas.distillation.losses import FeatureAlignment, frame_losses, match_taps, total_loss
from nas.distillation.settings import WEIGHTS, DistillSettings
from nas.metrics import build_lpips
from nas.teachers import Tap
from search_spaces import StageConfig
from tests.support.small_targets import CONFIG, TAPS, build_student, make_targets

PLAIN = DistillSettings(steps=1, feature_weight=0.0)
TRUTH = replace(PLAIN, truth_weight=2.0)


@pytest.fixture
def batch() -> TargetBatch:
    return make_targets(train=4).split("train").batch(range(4))


def make_alignment(batch: TargetBatch, stages: dict[str, int]) -> FeatureAlignment:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FeatureAlignment(build_student(), stages, batch.features)


def random_weights_lpips() -> nn.Module:
    """LPIPS with its published heads on a backbone with random weights, which can be had anywhere."""
    sizes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    generator = torch.Generator().manual_seed(0)
    backbone: dict[str, Tensor] = {}
    for index, (wide, narrow, kernel) in sizes.items():
        scale = (narrow * kernel**2) ** -0.5
        backbone[f"features.{index}.weight"] = scale * torch.randn(wide, narrow, kernel, kernel, generator=generator)
        backbone[f"features.{index}.bias"] = torch.zeros(wide)
    return build_lpips("alex", backbone).requires_grad_(False)


def test_taps_are_matched_to_stages_on_the_same_grid() -> None:
    stages, left_out = match_taps(build_student(), TAPS)
    assert stages == {"middle": 0, "up": 1}
    assert left_out == ("beyond",)


def test_the_last_stage_on_a_grid_is_taken() -> None:
    """The deepest features there have had the most layers to become like the teacher's."""
    more = StageConfig(20, 1, get_block("memory_conv2d").Config())
    config = replace(CONFIG, stages=(CONFIG.stages[0], more, CONFIG.stages[1]))
    stages, _ = match_taps(build_student(config=config), TAPS)
    assert stages == {"middle": 1, "up": 2}


def test_time_and_space_have_to_fit_both() -> None:
    taps = {"only time": Tap(4, 2, 1), "only space": Tap(4, 1, 2), "both": Tap(4, 2, 2)}
    stages, left_out = match_taps(build_student(), taps)
    assert stages == {"both": 1}
    assert left_out == ("only time", "only space")


def test_heads_go_from_the_students_width_to_the_teachers(batch: TargetBatch) -> None:
    alignment = make_alignment(batch, {"middle": 0, "up": 1})
    convs = [module for module in alignment.modules() if isinstance(module, nn.Conv3d)]
    widths = [(conv.in_channels, conv.out_channels) for conv in convs]
    assert widths == [(16, 6), (6, 6), (12, 5), (5, 5)]
    _, features = build_student().features(batch.latents, (0, 1))
    projected = alignment.project(features)
    assert {tap: each.shape for tap, each in projected.items()} == {
        tap: batch.features[tap].shape for tap in ("middle", "up")
    }


def test_features_normalised_per_channel_cost_nothing(batch: TargetBatch) -> None:
    """The teacher's feature "middle" is 7 h + 3: a student with mean 0 and deviation 1 in every channel is right."""
    alignment = make_alignment(batch, {"middle": 0, "up": 1})
    perfect = {}
    for tap in ("middle", "up"):
        feature = batch.features[tap]
        axes = (0, 2, 3, 4)
        perfect[tap] = (feature - feature.mean(axes, keepdim=True)) / feature.std(axes, keepdim=True)
    assert alignment.loss(perfect, batch.features).item() == pytest.approx(0.0, abs=1e-9)
    off = {tap: feature + 0.5 for tap, feature in perfect.items()}
    assert alignment.loss(off, batch.features).item() == pytest.approx(0.25, rel=1e-4)
    half_off = {"middle": off["middle"], "up": perfect["up"]}
    assert alignment.loss(half_off, batch.features).item() == pytest.approx(0.125, rel=1e-4)


def test_statistics_are_those_of_the_samples_not_of_the_batch(batch: TargetBatch) -> None:
    alignment = make_alignment(batch, {"middle": 0})
    shifted = {"middle": batch.features["middle"] + 7 * 2.0}
    before, after = (
        alignment.loss({"middle": torch.zeros_like(batch.features["middle"])}, features)
        for features in (batch.features, shifted)
    )
    assert before.item() == pytest.approx(1.0, rel=0.01)
    assert after.item() > 2


def test_a_channel_that_never_changes_does_no_harm(batch: TargetBatch) -> None:
    batch.features["middle"][:, 2] = 1.5
    alignment = make_alignment(batch, {"middle": 0})
    loss = alignment.loss({"middle": torch.zeros_like(batch.features["middle"])}, batch.features)
    assert loss.item() == pytest.approx(5 / 6, rel=0.01)


def test_a_tap_off_its_grid_is_refused(batch: TargetBatch) -> None:
    alignment = make_alignment(batch, {"middle": 0})
    for wrong in (batch.features["middle"][:, :, :2], batch.features["middle"][..., 1:]):
        with pytest.raises(ValueError, match="tap 'middle' does not lie on the grid it claims"):
            alignment.loss({"middle": wrong}, batch.features)


def test_no_tap_means_no_heads(batch: TargetBatch) -> None:
    alignment = make_alignment(batch, {})
    assert list(alignment.parameters()) == []
    assert alignment.project({}) == {}


def test_the_gradient_reaches_heads_and_student(batch: TargetBatch) -> None:
    """Features alone train all that lies below the tapped stage, and nothing above it."""
    decoder, alignment = build_student(), make_alignment(batch, {"middle": 0})
    _, features = decoder.features(batch.latents, (0,))
    alignment.loss(alignment.project(features), batch.features).backward()  # type: ignore[no-untyped-call]
    for module in (*alignment.heads, decoder.stem, decoder.stages[0]):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None for parameter in (*decoder.stages[1].parameters(), *decoder.head.parameters()))


def test_parts_are_distances_to_the_right_frames() -> None:
    frames, teacher, truth = (torch.full((2, 3, 3, 16, 16), value) for value in (0.2, 0.5, -0.1))
    parts = frame_losses(frames, teacher, truth, TRUTH, None)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx({"teacher": 0.3, "truth": 0.3})
    parts = frame_losses(frames, teacher, truth + 0.2, TRUTH, None)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx({"teacher": 0.3, "truth": 0.1})
    assert total_loss(parts, TRUTH).item() == pytest.approx(0.3 + 2 * 0.1)


def test_parts_without_weight_are_not_computed() -> None:
    frames = torch.zeros(1, 3, 1, 16, 16)
    parts = frame_losses(frames, frames, frames * float("nan"), PLAIN, None)
    assert list(parts) == ["teacher"] and parts["teacher"].item() == 0.0


def test_weights_belong_to_their_parts() -> None:
    powers: dict[str, Any] = {name: 2.0**power for power, name in enumerate(WEIGHTS)}
    settings = replace(PLAIN, **powers)
    parts = {name.removesuffix("_weight"): torch.tensor(1.0) for name in reversed(WEIGHTS)}
    assert total_loss(parts, settings).item() == 0b11111111
    assert total_loss({"feature": torch.tensor(2.0)}, settings).item() == 2 * 0b100


def test_motion_is_what_changes_from_frame_to_frame() -> None:
    """A student that is wrong by the same amount everywhere flickers as little as its teacher."""
    teacher = torch.rand(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    settings = replace(PLAIN, motion_weight=1.0)
    assert frame_losses(teacher + 0.1, teacher, teacher, settings, None)["motion"].item() == pytest.approx(0, abs=1e-6)
    flickering = teacher.clone()
    flickering[:, :, 1::2] += 0.1
    assert frame_losses(flickering, teacher, teacher, settings, None)["motion"].item() == pytest.approx(0.1)
    single = teacher[:, :, :1]
    assert list(frame_losses(single, single, single, settings, None)) == ["teacher"]


def test_detail_is_what_a_blur_takes_away() -> None:
    teacher = torch.rand(1, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    settings = replace(PLAIN, detail_weight=1.0)
    assert frame_losses(teacher + 0.1, teacher, teacher, settings, None)["detail"].item() == pytest.approx(0, abs=1e-6)
    blurred = functional.avg_pool3d(teacher, (1, 3, 3), stride=1, padding=(0, 1, 1))
    parts = frame_losses(blurred, teacher, teacher, settings, None)
    assert parts["detail"].item() > 0.6 * parts["teacher"].item()


def test_texture_is_the_strength_of_details_and_not_what_they_are() -> None:
    """Other noise of the same strength is as good, weaker noise is not, and a grey area in its place is none."""
    generator = torch.Generator().manual_seed(0)
    noise, other = (0.2 * torch.randn(1, 3, 2, 64, 64, generator=generator) for _ in range(2))
    settings = replace(PLAIN, texture_weight=1.0)

    def texture(frames: Tensor, wanted: Tensor) -> float:
        return frame_losses(frames, wanted, wanted, settings, None)["texture"].item()

    strength = 0.2 * (8 / 9) ** 0.5
    assert texture(noise + 0.3, noise) == pytest.approx(0, abs=1e-6)
    assert texture(torch.zeros_like(noise), noise) == pytest.approx(strength, rel=0.05)
    assert texture(0.5 * noise, noise) == pytest.approx(strength / 4, rel=0.05)
    assert texture(other, noise) < 0.03 * strength
    half = noise.clone()
    half[..., :32] = 0
    assert texture(half, noise) == pytest.approx(strength / 2, rel=0.15)


def test_texture_of_a_batch_is_the_mean_over_its_clips() -> None:
    """So that a batch may be computed in pieces."""
    wanted = torch.randn(2, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    wanted[1] *= 0.01
    settings = replace(PLAIN, texture_weight=1.0)
    parts = [
        frame_losses(some * 0.5, some, None, settings, None)["texture"] for some in (wanted, wanted[:1], wanted[1:])
    ]
    assert parts[0].item() == pytest.approx((parts[1] + parts[2]).item() / 2)


def test_where_there_is_nothing_texture_teaches_nothing_that_is_no_number() -> None:
    frames = torch.zeros(1, 3, 1, 16, 16, requires_grad=True)
    settings = replace(PLAIN, texture_weight=1.0)
    part = frame_losses(frames, torch.zeros_like(frames), None, settings, None)["texture"]
    part.backward()  # type: ignore[no-untyped-call]
    assert frames.grad is not None and frames.grad.abs().max() == 0 and part.item() == 0


def test_half_precision_frames_are_compared_in_float32() -> None:
    teacher = torch.full((1, 3, 1, 16, 16), 0.1)
    part = frame_losses(teacher.bfloat16(), teacher, teacher, PLAIN, None)["teacher"]
    assert part.dtype == torch.float32
    assert part.item() == pytest.approx(abs(0.10009765625 - 0.1), rel=1e-3)


def test_the_perceptual_part_is_the_mean_over_all_frames() -> None:
    """By the `lpips` network itself; frames of one clip meet the same frames of the same clip."""
    network = random_weights_lpips()
    generator = torch.Generator().manual_seed(0)
    teacher, other = (torch.rand(2, 3, 2, 32, 32, generator=generator) - 0.5 for _ in range(2))
    weights = replace(PLAIN, perceptual_weight=1.0)

    def distance(frames: Tensor) -> float:
        parts = frame_losses(frames, teacher, teacher, weights, network)
        assert list(parts) == ["teacher", "perceptual"] and parts["perceptual"].ndim == 0
        return parts["perceptual"].item()

    single = [network(other[b, None, :, t], teacher[b, None, :, t]).item() for b in range(2) for t in range(2)]
    assert min(single) > 0.01
    assert distance(teacher) == pytest.approx(0.0, abs=1e-7)
    assert distance(other) == pytest.approx(sum(single) / 4, rel=1e-4)
    one_wrong = teacher.clone()
    one_wrong[1, :, 0] = other[1, :, 0]
    assert distance(one_wrong) == pytest.approx(single[2] / 4, rel=1e-4)


def test_the_perceptual_part_teaches_frames_and_not_its_network() -> None:
    network = random_weights_lpips()
    teacher = torch.rand(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    frames = (teacher * 0.5).requires_grad_()
    part = frame_losses(frames, teacher, teacher, replace(PLAIN, perceptual_weight=1.0), network)["perceptual"]
    part.backward()  # type: ignore[no-untyped-call]
    assert frames.grad is not None and frames.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
