"""What a step keeps for the backward pass: counted without computing, bounded, and kept less of where memory asks."""

import random
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from blocks import Block
from nas.distillation import preparation
from nas.distillation.activations import Kept, Portion, kept_bytes, recomputing
from nas.distillation.distill import distill
from nas.distillation.initialise import build
from nas.distillation.preparation import prepare
from nas.distillation.settings import DistillSettings
from nas.distillation.training_forms import training_forms
from nas.proposals.choosers import Thrifty
from search_spaces import PRESETS, SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, adapt
from tests.support.small_memory import limit, of_a_gpu
from tests.support.small_targets import CONFIG, build_student, make_targets

CPU = torch.device("cpu")
LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
SIZE = (3, 4, 4)
DECODERS = {name: adapt(PRESETS[name], LATENTS, 8) for name in ("turbo_vaed_hunyuan", "flash_vaed_wan", "taehv_wan")}
WALKS = [SEARCH_SPACES["hybrid"].suggest(Thrifty(random.Random(seed), 2), LATENTS) for seed in range(6)]
SETTINGS = DistillSettings(steps=2, batch_size=4, report_every=2, precision="float32")


def computed_in(dtype: torch.dtype) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DECODERS)
def test_bytes_are_those_that_a_forward_pass_keeps(name: str, dtype: torch.dtype) -> None:
    config = DECODERS[name]
    decoder = Decoder(config).train()
    weights = {each.untyped_storage().data_ptr() for each in decoder.parameters()}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), training_forms(decoder, CPU), computed_in(dtype):
        decoder(torch.randn(1, 16, *SIZE))
    really = sum(tensor.untyped_storage().nbytes() for place, tensor in seen.items() if place not in weights)
    found = kept_bytes(config, SIZE, dtype, CPU)
    assert found.whole == really
    assert 0 < found.recomputed < 0.7 * found.whole


def test_bytes_grow_with_the_sample_and_are_known_for_devices_that_are_not_here() -> None:
    config = DECODERS["turbo_vaed_hunyuan"]
    for device in (CPU, torch.device("cuda")):
        small, large = (kept_bytes(config, size, torch.bfloat16, device) for size in ((3, 4, 4), (3, 8, 8)))
        assert 3.5 < large.whole / small.whole < 4.1


@pytest.mark.parametrize("space", SEARCH_SPACES)
def test_bytes_are_known_for_whatever_a_space_holds(space: str) -> None:
    for seed in range(6):
        config = SEARCH_SPACES[space].suggest(Thrifty(random.Random(seed), 1), LATENTS)
        for device in (CPU, torch.device("cuda")):
            found = kept_bytes(config, SIZE, torch.bfloat16, device)
            assert 0 < found.recomputed <= 1.5 * found.whole


def gradients(decoder: Decoder, latents: Tensor, dtype: torch.dtype, *, recompute: bool) -> list[Tensor]:
    decoder.zero_grad()
    with recomputing(decoder, CPU) if recompute else nullcontext():
        with training_forms(decoder, CPU), computed_in(dtype):
            frames = decoder(latents)
        frames.float().square().mean().backward()
    return [each.grad for each in decoder.parameters() if each.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [*DECODERS.values(), *WALKS], ids=DecoderConfig.digest)
def test_recomputed_parts_give_the_same_gradients(config: DecoderConfig, dtype: torch.dtype) -> None:
    decoder, latents = build(config, 0).train(), torch.randn(1, 16, *SIZE)
    plain = gradients(decoder, latents, dtype, recompute=False)
    again = gradients(decoder, latents, dtype, recompute=True)
    assert len(plain) == len(again) > 0
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert not any("forward" in vars(module) for module in decoder.modules()), "all is as it was"


def count_kept(decoder: Decoder) -> list[weakref.ref[Tensor]]:
    """Outputs of the convolutions and activations of a decoder, to be looked at later."""
    outputs: list[weakref.ref[Tensor]] = []
    for module in decoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ReLU)):
            module.register_forward_hook(lambda module, args, out: outputs.append(weakref.ref(out)))
    return outputs


def test_recomputed_parts_keep_nothing_but_their_inputs() -> None:
    decoder, latents = build(DECODERS["turbo_vaed_hunyuan"], 0).train(), torch.randn(1, 16, *SIZE)
    outputs, alive = count_kept(decoder), []
    for recompute in (False, True):
        outputs.clear()
        with recomputing(decoder, CPU) if recompute else nullcontext():
            frames = decoder(latents)
            alive.append(sum(each() is not None for each in outputs))
            del frames
    parts = sum(isinstance(module, Block) for module in decoder.modules())
    assert alive[1] <= parts < alive[0]


def test_portions() -> None:
    assert Portion.of(Kept(100, 20), 8, 1_600) == Portion(8)
    assert Portion.of(Kept(100, 20), 8, 1_000) == Portion(5)
    assert Portion.of(Kept(100, 20), 8, 200) == Portion(1)
    assert Portion.of(Kept(100, 20), 8, 100) == Portion(2, recompute=True)
    assert Portion.of(Kept(100, 20), 8, 1) == Portion(1, recompute=True), "it is tried"


def test_memory_bounds_the_batch_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = make_targets().split("train").batch([0]).latents.shape[2:]
    kept = kept_bytes(CONFIG, (latents[0], latents[1], latents[2]), torch.float32, CPU)
    monkeypatch.setattr(preparation, "memory_limit", lambda device: 5 * kept.whole)
    student = build_student()
    asked = limit(student.stem, 4)
    distill(student, make_targets(), SETTINGS, device="cpu")
    assert asked[:4] == [2, 2, 2, 2]


def test_where_not_one_sample_fits_parts_are_recomputed() -> None:
    """Memory runs out where too much is kept, whatever the number of samples."""

    def train(short_of_memory: bool) -> tuple[dict[str, Tensor], int]:
        student = build_student()
        outputs = count_kept(student)
        failures = 0

        def check(head: nn.Module, args: tuple[Any, ...]) -> None:
            nonlocal failures
            alive = sum(each() is not None for each in outputs)
            if short_of_memory and torch.is_grad_enabled() and alive > 1 + len(student.stages):
                failures += 1
                of_a_gpu()

        student.head.register_forward_pre_hook(check)
        return distill(student, make_targets(), SETTINGS, device="cpu").decoder.state_dict(), failures

    whole, failures = train(False)
    recomputed, later = train(True)
    assert failures == 0 and later == 3, "with four samples, two and one; then never again"
    assert all(torch.equal(whole[name], recomputed[name]) for name in whole)


def test_a_batch_that_fits_is_computed_at_once() -> None:
    run = prepare(build_student(), make_targets(), SETTINGS, CPU, None, fresh=True)
    assert run.portion == Portion(4)
