"""Training forms are the same function: outputs and gradients of every part, and nothing of them is left behind."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blocks import get_block, list_blocks
from blocks.layers.convolutions import BranchedConv, Conv3d
from blocks.layers.norms import ChannelLayerNorm, RmsNorm
from blocks.time_context import TemporalMode, TimeContext
from nas.core_ml.convert import export_program
from nas.distillation.distill import Progress, distill
from nas.distillation.settings import DistillSettings
from nas.distillation.training_forms import training_forms
from nas.testing.block_parts import each_option, parts
from search_spaces import Decoder
from tests.support.small_targets import CONFIG, build_student, make_targets
from tests.support.trained_parts import trained

CPU = torch.device("cpu")
MODES: tuple[TemporalMode, ...] = ("causal", "bidirectional")


def make_input(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def gradients(module: nn.Module, x: Tensor, out: Tensor) -> list[Tensor]:
    """Of the input and of every parameter, for a fixed random gradient of the output."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return list(torch.autograd.grad((out * weights).sum(), [x, *module.parameters()]))


def expect_same(module: nn.Module, x: Tensor, time: TimeContext | None = None, tolerance: float = 1e-5) -> None:
    """The module gives the same output and gradients in training forms; differences relative to the largest value."""
    context = () if time is None else (time,)
    results = []
    for forms in (False, True):
        mine = x.clone().requires_grad_()
        if forms:
            with training_forms(module, CPU):
                out = module(mine, *context)
        else:
            out = module(mine, *context)
        results.append([out.detach(), *gradients(module, mine, out)])
    for plain, other in zip(*results, strict=True):
        assert plain.shape == other.shape and plain.dtype == other.dtype
        assert float((plain - other).abs().max()) <= tolerance * float(1e-3 + plain.abs().max())


KERNELS = [(1, 1, 1), (3, 1, 1), (1, 3, 3), (3, 3, 3), (3, 5, 5), (5, 5, 5)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("kernel", KERNELS)
def test_convolutions_over_videos(kernel: tuple[int, int, int], groups: int, mode: TemporalMode) -> None:
    for batch in (1, 2):
        conv = Conv3d(6, 6 if groups > 1 else 5, kernel, groups).double()
        x = make_input(batch, 6, 4, 5, 3, dtype=torch.float64)
        expect_same(conv, x, TimeContext(batch, mode, drop_leading=False), tolerance=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_convolutions_that_are_sums_of_branches(mode: TemporalMode) -> None:
    conv = BranchedConv(4, 5, 3).double()
    for branch in (conv.temporal, conv.spatial, conv.pointwise):
        nn.init.normal_(branch)
    x = make_input(2, 4, 3, 4, 5, dtype=torch.float64)
    expect_same(conv, x, TimeContext(2, mode, drop_leading=False), tolerance=1e-12)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 4, 3, padding=1),
        nn.Conv2d(6, 6, 7, padding=3, groups=6),
        nn.Conv2d(6, 6, 1, groups=6, bias=False),
        nn.Conv2d(6, 6, 1, padding=1, groups=6),
        nn.Conv2d(6, 6, 3, padding="same", groups=6),
        nn.Conv2d(6, 12, 3, groups=6),
        nn.Conv2d(6, 6, 3, stride=2, groups=6),
        nn.Conv2d(6, 6, 3, dilation=2, groups=6),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Conv3d(6, 4, 3, padding=1),
        nn.Conv3d(6, 6, 3, padding=1, groups=6),
        nn.Conv3d(6, 4, (3, 1, 1), bias=False),
        nn.Conv3d(6, 4, 3, stride=(1, 2, 2)),
        nn.Conv3d(6, 4, 3, groups=2),
    ],
    ids=str,
)
def test_whatever_convolution_a_part_has(conv: nn.Conv2d | nn.Conv3d) -> None:
    """Those that have no other form are computed as ever."""
    video = isinstance(conv, nn.Conv3d)
    shape = (2, 6, 4, 7, 8) if video else (3, 6, 7, 8)
    expect_same(copy.deepcopy(conv).double(), make_input(*shape, dtype=torch.float64), tolerance=1e-12)
    expect_same(conv, make_input(*shape[1:]))


@pytest.mark.parametrize("norm", [RmsNorm(), ChannelLayerNorm(6)], ids=str)
def test_norms(norm: nn.Module) -> None:
    expect_same(norm, make_input(2, 6, 3, 4, 5))
    expect_same(norm, make_input(4, 6, 4, 5) * 300)
    expect_same(norm, torch.zeros(1, 6, 2, 2))


PASSES: tuple[tuple[TemporalMode, int, bool], ...] = (
    ("causal", 1, True),
    ("causal", 2, False),
    ("bidirectional", 1, True),
)
"""Temporal mode, clips in the batch, and whether the first latent frame becomes one frame."""


@pytest.mark.parametrize("name", list_blocks())
def test_every_part(name: str) -> None:
    """In every option, geometry and temporal mode, with several clips and with one."""
    for config in each_option(get_block(name).Config()):
        for part in map(trained, parts(config)):
            for mode, batch, drop in PASSES:
                x = part.input(3, 4, 6, batch=batch)
                if part.block.input_layout == "frames":
                    x = x.transpose(1, 2).flatten(0, 1)
                if part.block.role == "shortcut" and part.leading != drop:
                    continue  # the convolution of the first frame is there to be used
                expect_same(part.block, x, TimeContext(batch, mode, drop_leading=drop), tolerance=2e-4)


@pytest.mark.parametrize("groups", [1, 8])
def test_in_bfloat16_they_are_as_near_to_the_truth(groups: int) -> None:
    """Under autocast, with outputs and gradients of the same types."""
    conv, x = Conv3d(8, 8, (3, 3, 3), groups), make_input(1, 8, 4, 6, 5)
    time = TimeContext(1, "causal", drop_leading=False)
    truth = conv(x, time)

    def run(forms: bool) -> tuple[list[torch.dtype], float]:
        mine = x.bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            if forms:
                with training_forms(conv, CPU):
                    out = conv(mine, time)
            else:
                out = conv(mine, time)
        found = [out, *gradients(conv, mine, out)]
        return [each.dtype for each in found], float((out.float() - truth).abs().max().detach())

    (wanted, plain), (dtypes, error) = run(False), run(True)
    assert dtypes == wanted and error <= 1.5 * plain


def mode_is_on() -> bool:
    """Whether functions of PyTorch are answered by something else."""
    return bool(torch.overrides.has_torch_function((torch.zeros(1),)))


def test_nothing_is_left_behind() -> None:
    """No hook, no mode, no other state dict, whether it ends well or not."""
    student = build_student()
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(KeyError), training_forms(student, CPU):
        raise KeyError
    with training_forms(student, CPU):
        student(torch.zeros(1, 4, 3, 4, 4))
    assert not any(module._forward_pre_hooks for module in student.modules())
    assert not mode_is_on()
    after = student.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert all(before[name].stride() == after[name].stride() for name in before)


def test_on_a_gpu_nothing_changes() -> None:
    with training_forms(build_student(), torch.device("cuda")):
        assert not mode_is_on()


def depthwise_student() -> Decoder:
    """With convolutions that have other forms in bfloat16, too."""
    first, second = CONFIG.stages
    blocks = get_block("depthwise_separable_conv3d").Config(), get_block("inverted_bottleneck3d").Config()
    stages = replace(first, block=blocks[0]), replace(second, block=blocks[1])
    return build_student(config=replace(CONFIG, stages=stages))


def test_a_trained_student_is_exported_as_ever() -> None:
    def program(decoder: Decoder) -> str:
        return str(export_program(decoder.eval(), (torch.zeros(1, 4, 3, 4, 4),)).graph)

    student = depthwise_student()
    before = program(copy.deepcopy(student))
    settings = DistillSettings(steps=2, batch_size=1)
    assert program(distill(student, make_targets(), settings, device="cpu").decoder) == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_is_the_undisturbed_one(precision: str, tmp_path: Path) -> None:
    settings = DistillSettings(steps=4, batch_size=1, checkpoint_every=2, precision=precision)  # type: ignore[arg-type]
    targets, path = make_targets(), tmp_path / "checkpoint"

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    whole = distill(depthwise_student(), targets, settings, device="cpu").decoder.state_dict()
    with pytest.raises(KeyboardInterrupt):
        distill(depthwise_student(), targets, settings, device="cpu", checkpoint=path, report=stop)
    resumed = distill(depthwise_student(), targets, settings, device="cpu", checkpoint=path).decoder.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
