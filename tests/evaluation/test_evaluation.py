"""Evaluation on small targets whose right numbers are known."""

import json
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.data.settings import Split
from nas.data.targets import Samples, ShardSamples, Targets
from nas.evaluation.baselines import linear_patches, nearest_linear_rgb
from nas.evaluation.quality import evaluate, evaluate_teacher
from nas.evaluation.results import Evaluation
from nas.metrics import VIDEO_RANGE, psnr
from search_spaces import LatentSpec
from tests.support.small_targets import shards_of

SPEC = LatentSpec(channels=4, spatial=8, temporal=4)
MATRIX = torch.tensor([[0.3, 0.1, 0.0, 0.0], [0.0, 0.2, -0.2, 0.0], [0.1, 0.0, 0.0, 0.3]])
OFFSET = torch.tensor([0.1, 0.0, -0.1])


def blocks_of(latents: Tensor, matrix: Tensor = MATRIX) -> Tensor:
    """Frames that are exactly a linear map of the latents, 4(n-1)+1 of them, one colour per 8x8 pixels."""
    colours = torch.einsum("bcthw,rc->brthw", latents, matrix) + OFFSET.view(3, 1, 1, 1)
    slow = colours.repeat_interleave(4, dim=2)[:, :, 3:]
    return slow.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)


def make_split(count: int, seed: int, clip_names: tuple[str, ...], noise: float = 0.0) -> ShardSamples:
    """Latents with blocky teacher frames; the truth is the same at 90% contrast."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.rand(count, 4, 2, 2, 3, generator=generator) * 2 - 1
    frames = blocks_of(latents)
    frames = frames + noise * (torch.rand(frames.shape, generator=generator) - 0.5)
    truth = ((0.9 * frames + 1) * 127.5).round().byte()
    memory = {0: {"latents": latents, "frames": frames, "truth": truth}}
    return ShardSamples((), tuple((0, index) for index in range(count)), clip_names, memory)


@pytest.fixture
def targets() -> Targets:
    splits: dict[Split, Samples] = {
        "train": make_split(8, 0, ("a",) * 8),
        "score": make_split(2, 1, ("b", "c")),
        "test": make_split(5, 2, ("d", "d", "e", "e", "e")),
    }
    return Targets("key", SPEC, {}, splits)


def test_the_baseline_finds_the_linear_map(targets: Targets) -> None:
    """The teacher is a linear map here, so the baseline must be the teacher, for other numbers of latents too."""
    decode = nearest_linear_rgb(targets)
    latents = torch.rand(2, 4, 3, 5, 2) * 2 - 1
    assert torch.allclose(decode(latents), blocks_of(latents), atol=1e-4)
    found = evaluate(decode, targets)
    assert found.psnr_teacher is not None and found.psnr_teacher > 80


def test_the_baseline_takes_a_channel_that_never_changes(targets: Targets) -> None:
    split = shards_of(targets, "train")
    assert split.loaded is not None
    split.loaded[0]["latents"][:, 3] = 0.5
    frames = nearest_linear_rgb(targets)(split.batch([0]).latents)
    assert torch.isfinite(frames).all()


@pytest.mark.parametrize(("rule", "latents", "frames"), [("multiple", 3, 12), ("leading_if_odd", 3, 9)])
def test_the_baseline_follows_the_frame_rule(rule: str, latents: int, frames: int, targets: Targets) -> None:
    spec = LatentSpec(channels=4, spatial=8, temporal=4, frame_rule=rule)  # type: ignore[arg-type]
    z = torch.rand(8, 4, latents, 2, 3)
    teacher = torch.rand(8, 3, frames, 16, 24)
    memory = {0: {"latents": z, "frames": teacher, "truth": teacher.byte()}}
    split = ShardSamples((), tuple((0, index) for index in range(8)), ("a",) * 8, memory)
    decode = nearest_linear_rgb(Targets("key", spec, {}, {"train": split}))
    assert decode(z).shape == teacher.shape
    # Nothing linear explains noise, so the best is close to the mean colour.
    assert decode(z).mean().item() == pytest.approx(0.5, abs=0.02)


def test_patches_see_what_one_colour_cannot(targets: Targets) -> None:
    """A linear teacher whose pixels differ inside of a block, and whose first frame has a map of its own."""
    split = shards_of(targets, "train")
    assert split.loaded is not None
    ramp = torch.linspace(0.5, 1.0, 8).repeat(16, 3)
    frames = split.loaded[0]["frames"] * ramp
    frames[:, :, 0] *= -0.5
    split.loaded[0]["frames"] = frames
    latents = split.batch([0]).latents
    assert torch.allclose(linear_patches(targets)(latents), frames[:1], atol=1e-2)
    assert not torch.allclose(nearest_linear_rgb(targets)(latents), frames[:1], atol=0.05)


def test_numbers_are_those_of_the_metrics(targets: Targets) -> None:
    batch = targets.split("test").batch(range(5))
    frames = blocks_of(batch.latents, MATRIX * 0.7)
    found = evaluate(lambda latents: blocks_of(latents, MATRIX * 0.7), targets, batch_size=2)
    per_sample = psnr(frames, batch.frames, VIDEO_RANGE)
    by_clip = [per_sample[:2].mean().item(), per_sample[2:].mean().item()]
    assert [clip.name for clip in found.clips] == ["d", "e"]
    assert [clip.crops for clip in found.clips] == [2, 3]
    assert [clip.to_teacher.psnr for clip in found.clips if clip.to_teacher] == pytest.approx(by_clip, abs=1e-4)
    assert found.psnr_teacher == pytest.approx(sum(by_clip) / 2, abs=1e-4)
    assert found.psnr_truth == found.to_truth.psnr != found.psnr_teacher


def test_first_frame_and_rest_are_apart(targets: Targets) -> None:
    def blind_at_first(latents: Tensor) -> Tensor:
        frames = blocks_of(latents)
        frames[:, :, 0] = 0.0
        return frames

    quality = evaluate(blind_at_first, targets).to_teacher
    assert quality is not None and quality.psnr_rest is not None
    assert quality.psnr_rest == pytest.approx(100.0) and quality.psnr_first < 21
    assert quality.psnr == pytest.approx((quality.psnr_first + 4 * quality.psnr_rest) / 5)
    assert quality.ssim_first < 0.5 and quality.ssim_rest == pytest.approx(1.0)


def test_the_teacher_is_judged_against_the_video_alone(targets: Targets) -> None:
    found = evaluate_teacher(targets)
    assert found.psnr_teacher is None and found.ssim_teacher is None
    frames = targets.split("test").batch(range(5)).frames
    error = (0.1 * frames).square().mean().item()
    assert found.psnr_truth == pytest.approx(-10 * math.log10(error / 4), abs=0.7)


def test_output_beyond_white_is_shown_as_white(targets: Targets) -> None:
    inside = evaluate(lambda latents: torch.ones_like(blocks_of(latents)), targets)
    beyond = evaluate(lambda latents: 5 * torch.ones_like(blocks_of(latents)), targets)
    assert inside == beyond


def test_frames_that_are_not_finite_or_of_another_shape_are_refused(targets: Targets) -> None:
    with pytest.raises(ValueError, match="prediction"):
        evaluate(lambda latents: blocks_of(latents) * math.nan, targets)
    with pytest.raises(ValueError, match="of one shape"):
        evaluate(lambda latents: functional.pad(blocks_of(latents), (0, 1)), targets)


def test_an_empty_split_is_refused(targets: Targets) -> None:
    targets.splits["test"] = ShardSamples((), (), (), {})
    with pytest.raises(ValueError, match="the test split of the targets is empty"):
        evaluate(blocks_of, targets)


def test_json_round_trip(targets: Targets) -> None:
    for found in (evaluate(blocks_of, targets, "score"), evaluate_teacher(targets)):
        again = Evaluation.from_dict(json.loads(json.dumps(found.to_dict())))
        assert again == found
    assert found.lpips.startswith("LPIPS off") or found.lpips == "on"
