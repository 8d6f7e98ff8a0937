"""Exported programs give PyTorch's frames: every registered part, decoders of every space; and faults are named."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import BlockConfig, get_block, list_blocks
from blocks.layers.norms import ChannelLayerNorm, RmsNorm
from blocks.rewrites import scale_norms
from blocks.time_context import TemporalMode, to_frames
from nas.core_ml.convert import to_core_ml, to_mil
from nas.core_ml.formats import Precision
from nas.core_ml.interpreter import evaluate
from nas.core_ml.program import Program, from_mil, read_program
from nas.core_ml.proof import Proof, prove
from nas.export.settings import LEAST_PSNR
from nas.testing.block_parts import InTime, Part, parts
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec

LARGEST_ERROR = 1e-3
"""Of the float32 conversion, on outputs of unit scale."""

WAN = LatentSpec(channels=16, spatial=8, temporal=4)
OTHERS = (
    LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False),
    LatentSpec(channels=128, spatial=32, temporal=8),
    LatentSpec(channels=12, spatial=8, temporal=6),
    LatentSpec(channels=16, spatial=8, temporal=4, frame_rule="leading_if_odd"),
)


class AtUnitScale(nn.Module):
    """A module whose output is scaled to a largest value of 1, as frames have."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.module = module
        with torch.no_grad():
            self.scale = 1.0 / module(x).abs().max().item()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale * self.module(x)
        return out


Convert = Callable[[nn.Module, Tensor, Precision], Program]


def proof_of(module: nn.Module, x: Tensor, precision: Precision, convert: Convert) -> Proof:
    program = convert(module, x, precision)
    (given,), (out,) = program.inputs, program.outputs
    with torch.no_grad():
        return prove(program, {given.name: x}, {out.name: module(x)}, frames=out.name)


def check(module: nn.Module, x: Tensor, convert: Convert) -> None:
    """The float32 conversion is exact, the float16 conversion precise enough."""
    module = AtUnitScale(module.eval(), x)
    assert proof_of(module, x, "float32", convert).max_error_exact < LARGEST_ERROR
    half = proof_of(module, x, "float16", convert)
    assert half.psnr_rounded >= LEAST_PSNR, half.jump
    assert half.psnr_exact >= half.psnr_rounded - 3, "rounding more cannot help"


def in_memory(module: nn.Module, x: Tensor, precision: Precision) -> Program:
    return from_mil(to_mil(module, x, precision=precision))


def as_package(module: nn.Module, x: Tensor, precision: Precision) -> Program:
    return read_program(to_core_ml(module, (x,), precision=precision))


QUICK = ("dense_conv3d", "memory_conv2d", "staged_pixel_shuffle_head", "linear_shortcut", *list_blocks("upsampler"))
"""Parts that between them give every kind of operation that there is in a decoder."""


def part_cases() -> Iterator[Any]:
    """Every option of every part in both modes; in the quick suite some of the defaults."""
    for name in list_blocks():
        for index, config in enumerate(get_block(name).Config.all_configs()):
            for mode in ("causal", "bidirectional"):
                options = ",".join(f"{key}={value}" for key, value in config.to_dict().items() if key != "name")
                slow = index > 0 or mode == "bidirectional" or name not in QUICK
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(config, mode, id=f"{name}-{options}-{mode}", marks=marks)


def input_of(part: Part) -> Tensor:
    x = part.input(frames=3)
    return x if part.block.input_layout == "video" else to_frames(x)


@pytest.mark.parametrize(("config", "mode"), list(part_cases()))
def test_a_part_survives_conversion(config: BlockConfig, mode: TemporalMode) -> None:
    *_, part = parts(config)
    check(InTime(part.block, mode), input_of(part), in_memory)


class Dice:
    """Chooses at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        return self._random.choice(choices)


class First:
    """Chooses what is offered first: a small decoder."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        return choices[0]


def random_config(space: str, latents: LatentSpec, seed: int) -> DecoderConfig:
    return SEARCH_SPACES[space].suggest(Dice(seed), latents)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("space", sorted(SEARCH_SPACES))
def test_decoders_of_every_space_survive_conversion(space: str, seed: int) -> None:
    """Thirty of each space for Wan's latents, and some of them for those of other teachers."""
    latents = WAN if seed % 3 else OTHERS[seed // 3 % len(OTHERS)]
    torch.manual_seed(seed)
    decoder = Decoder(random_config(space, latents, seed))
    check(decoder, torch.randn(1, latents.channels, 3 if latents.spatial == 8 else 2, 2, 3), as_package)


class Loud(nn.Module):
    """Squares of 300 overflow float16, unless they are taken of something smaller."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        loud = 300.0 * torch.tanh(x)
        return torch.sqrt((self.scale * loud).square() + 1e-3) / (300.0 * self.scale)


def test_the_operation_that_overflows_is_named() -> None:
    x = torch.randn(1, 3, 2, 4, 4)
    proof = proof_of(Loud(1.0), x, "float16", in_memory)
    assert proof.psnr_exact > 60 > LEAST_PSNR > proof.psnr_rounded == -100
    assert proof.jump is not None and proof.jump.kind in ("mul", "square", "pow") and proof.jump.before > 50
    assert "infinity or not a number out" in proof.jump.describe()
    assert proof_of(Loud(0.01), x, "float16", in_memory).psnr_rounded > 60


def test_the_operation_that_cancels_is_named() -> None:
    """A small difference of large numbers: the error is there after the first operation, and jumps at the second."""

    class Cancels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (torch.tanh(x) + 500.0) - 500.0

    proof = proof_of(Cancels(), torch.randn(1, 3, 2, 4, 4), "float16", in_memory)
    assert proof.psnr_rounded < LEAST_PSNR < proof.psnr_exact
    assert proof.jump is not None and proof.jump.kind in ("sub", "add") and proof.jump.before - proof.jump.after > 10


def test_norms_of_loud_features_are_scaled_or_in_mixed_precision() -> None:
    """In float16 norms lose what is above 256; a factor, or their statistics in float32, cures it."""
    *_, part = parts(get_block("dense_conv3d").Config())
    module, x = AtUnitScale(InTime(part.block).eval(), 600 * input_of(part)), 600 * input_of(part)
    half, mixed = (proof_of(module, x, precision, as_package) for precision in ("float16", "mixed"))
    assert half.psnr_rounded < LEAST_PSNR and half.jump is not None
    assert half.jump.after == -100 and half.jump.kind == "mul"
    assert mixed.psnr_rounded > 60
    assert scale_norms(part.block, {"norm1": 600.0, "shortcut_norm": 600.0}) == 2
    assert proof_of(module, x, "float16", in_memory).psnr_rounded > 60


@pytest.mark.parametrize("largest", [pytest.param(1000.0, marks=pytest.mark.slow), 10_000.0])
@pytest.mark.parametrize("norm", [RmsNorm, lambda: ChannelLayerNorm(8)], ids=["rms", "layer"])
def test_a_scaled_norm_survives_float16(norm: Callable[[], RmsNorm], largest: float) -> None:
    """At positions as loud as it was scaled for, at some twice as loud, and at some a thousand times quieter."""
    module, x = norm(), largest * (2 * torch.rand(1, 8, 2, 4, 6, generator=torch.Generator().manual_seed(0)) - 1)
    assert proof_of(module, x, "float16", in_memory).psnr_rounded < 10
    x[..., 2:4] *= 2
    x[..., 4:] /= 1000
    assert scale_norms(module, {"": largest}) == 1
    program = in_memory(module, x, "float16")
    (frames,) = evaluate(program, {program.inputs[0].name: x}, rounded=True).values()
    assert (frames - module(x)).abs().max() < 0.01


def test_a_wrong_program_is_caught() -> None:
    """Of another decoder's weights; and outputs of other names."""
    x = torch.randn(1, 16, 2, 2, 2)
    torch.manual_seed(0)
    one, other = nn.Conv3d(16, 3, 1), nn.Conv3d(16, 3, 1)
    program = in_memory(one, x, "float32")
    (given,), (out,) = program.inputs, program.outputs
    with torch.no_grad():
        right = prove(program, {given.name: x}, {out.name: one(x)}, frames=out.name)
        wrong = prove(program, {given.name: x}, {out.name: other(x)}, frames=out.name)
        with pytest.raises(ValueError, match=r"the program gives .*, expected \['video'\]"):
            prove(program, {given.name: x}, {"video": one(x)})
    assert right.psnr_exact > 100 - 1e-6 and right.jump is None
    assert wrong.psnr_exact < 20


def test_stages_and_sizes_of_a_program() -> None:
    """What costs are read from: kinds, shapes, weights and the stage of every operation."""
    decoder = Decoder(SEARCH_SPACES["hybrid"].suggest(First(), WAN)).eval()
    program = as_package(decoder, torch.zeros(1, 16, 2, 2, 3), "float16")
    (latents,), (frames,) = program.inputs, program.outputs
    assert (latents.name, latents.shape, latents.dtype) == ("latents", (1, 16, 2, 2, 3), "fp16")
    assert frames.shape == (1, 3, 5, 16, 24) and frames.bytes == 2 * 3 * 5 * 16 * 24
    assert {operation.stage for operation in program.operations} == set(decoder.stage_modules())
    assert all(out.rank <= 5 for operation in program.operations for out in operation.results)
    convolutions = [operation for operation in program.operations if operation.kind == "conv"]
    weights = [operation.inputs["weight"] for operation in convolutions]
    stored = sum(weight.stored_bytes for weight in weights if not isinstance(weight, tuple))
    assert stored == 2 * sum(p.numel() for p in decoder.parameters() if p.ndim > 1)
    assert convolutions[0].constant("strides") in ([1, 1], [1, 1, 1])
    assert all(operation.inputs["x"] in operation.tensors() for operation in convolutions)
