"""Students are trained on a GPU as on the CPU, in every number format, resumed, and within its memory."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.distillation import preparation
from nas.distillation.activations import Portion, kept_bytes, recomputing
from nas.distillation.distill import Progress, distill
from nas.distillation.initialise import build
from nas.distillation.settings import DistillSettings, Precision
from nas.distillation.training_forms import training_forms
from search_spaces import PRESETS, Decoder, LatentSpec, adapt
from tests.support.small_memory import limit
from tests.support.small_targets import CONFIG, build_student, make_targets

SETTINGS = DistillSettings(
    steps=30, batch_size=4, learning_rate=1e-2, truth_weight=0.1, motion_weight=1.0, detail_weight=1.0, report_every=10
)
LARGE = adapt(PRESETS["turbo_vaed_hunyuan"], LatentSpec(channels=16, spatial=8, temporal=4), 2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_a_student_learns_as_it_does_on_a_cpu(device: torch.device, precision: Precision) -> None:
    settings = replace(SETTINGS, precision=precision)
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.loss)

    found = distill(build_student(), make_targets(), settings, device=device, report=report)
    reference = distill(build_student(), make_targets(), replace(settings, precision="float32"), device="cpu")
    assert {each.device.type for each in found.decoder.state_dict().values()} == {device.type}
    assert losses[-1] < 0.7 * losses[0]
    assert found.score == pytest.approx(reference.score, abs=0.5)


def test_a_run_that_was_cut_off_goes_on(device: torch.device, tmp_path: Path) -> None:
    whole = distill(build_student(), make_targets(), SETTINGS, device=device)
    place = tmp_path / "checkpoint.pt"
    distill(build_student(), make_targets(), SETTINGS, device=device, checkpoint=place, until=15)
    resumed = distill(build_student(), make_targets(), SETTINGS, device=device, checkpoint=place)
    assert resumed.score == pytest.approx(whole.score, abs=1e-3 if device.type == "cpu" else 0.1)


def test_a_critic_joins(device: torch.device) -> None:
    settings = replace(SETTINGS, adversarial_weight=0.1, steps=6, report_every=6)
    assert distill(build_student(), make_targets(), settings, device=device).score > 5


def gradients(decoder: Decoder, latents: Tensor, *, recompute: bool) -> list[Tensor]:
    decoder.zero_grad()
    with recomputing(decoder, latents.device) if recompute else nullcontext():
        with training_forms(decoder, latents.device):
            frames = decoder(latents)
        frames.square().mean().backward()
    return [each.grad.clone() for each in decoder.parameters() if each.grad is not None]


def test_recomputed_parts_give_the_same_gradients(device: torch.device) -> None:
    decoder = build(LARGE, 0).to(device).train()
    latents = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(device)
    plain, again = (gradients(decoder, latents, recompute=each) for each in (False, True))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_what_was_counted(cuda: torch.device, dtype: torch.dtype) -> None:
    """Up to what the allocator rounds up."""
    decoder, latents = build(LARGE, 0).to(cuda).train(), torch.randn(1, 16, 5, 16, 16, device=cuda)
    before = torch.cuda.memory_allocated(cuda)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        frames = decoder(latents)
    kept = torch.cuda.memory_allocated(cuda) - before - frames.nbytes
    assert kept == pytest.approx(kept_bytes(LARGE, (5, 16, 16), dtype, cuda).whole, rel=0.15)


def test_recomputed_parts_take_less_memory(cuda: torch.device) -> None:
    decoder, latents = build(LARGE, 0).to(cuda).train(), torch.randn(1, 16, 5, 16, 16, device=cuda)
    peaks = []
    for recompute in (False, True):
        gradients(decoder, latents, recompute=recompute)
        torch.cuda.reset_peak_memory_stats(cuda)
        before = torch.cuda.memory_allocated(cuda)
        gradients(decoder, latents, recompute=recompute)
        peaks.append(torch.cuda.max_memory_allocated(cuda) - before)
    assert peaks[1] < 0.6 * peaks[0]


def test_memory_that_really_runs_out_halves_the_batch(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less memory than the whole batch takes, training tries it, then less, and gives the same weights."""
    settings = replace(SETTINGS, steps=2, batch_size=16, report_every=2, precision="float32")
    wide = replace(CONFIG, stages=tuple(replace(stage, width=256) for stage in CONFIG.stages))

    def train(samples: int) -> tuple[dict[str, Tensor], list[int]]:
        monkeypatch.setattr(preparation, "_first_portion", lambda *_: Portion(samples))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(cuda)
        student = build_student(config=wide)
        asked = limit(student.stem, 16)
        return distill(student, make_targets(), settings, device=cuda).decoder.state_dict(), asked

    whole, _ = train(16)
    much = torch.cuda.max_memory_reserved(cuda)
    train(2)
    little = torch.cuda.max_memory_reserved(cuda)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction((much + little) / 2 / total, cuda)
    try:
        found, asked = train(16)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    assert asked[0] == 16 and min(asked) < 16
    for name, tensor in whole.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
