"""Exported programs give PyTorch's frames: every registered part, decoders of every space; and faults are named."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from block_contract import InTime, Part, parts
from torch import Tensor, nn

from blocks import BlockConfig, get_block, list_blocks
from blocks.time_context import TemporalMode, to_frames
from nas.export.coreml import to_core_ml
from nas.export.proof import Proof, prove
from nas.export.program import read_program
from nas.export.settings import LEAST_PSNR, Precision
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


def proof_of(module: nn.Module, x: Tensor, precision: Precision) -> Proof:
    program = read_program(to_core_ml(module, (x,), precision=precision))
    with torch.no_grad():
        return prove(program, {"latents": x}, {"frames": module(x)})


def check(module: nn.Module, x: Tensor) -> None:
    module = AtUnitScale(module.eval(), x)
    exact = proof_of(module, x, "float32")
    assert exact.max_error_exact < LARGEST_ERROR
    half = proof_of(module, x, "float16")
    assert half.psnr_rounded >= LEAST_PSNR, half.jump
    assert half.psnr_exact >= half.psnr_rounded - 3, "rounding more cannot help"


def part_cases() -> Iterator[Any]:
    """Every option of every part in both modes; in the quick suite the default option in its own mode."""
    for name in list_blocks():
        for index, config in enumerate(get_block(name).Config.all_configs()):
            for mode in ("causal", "bidirectional"):
                options = ",".join(f"{key}={value}" for key, value in config.to_dict().items() if key != "name")
                slow = index > 0 or mode == "bidirectional"
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(config, mode, id=f"{name}-{options}-{mode}", marks=marks)


def input_of(part: Part) -> Tensor:
    x = part.input(frames=3)
    return x if part.block.input_layout == "video" else to_frames(x)


@pytest.mark.parametrize(("config", "mode"), list(part_cases()))
def test_a_part_survives_conversion(config: BlockConfig, mode: TemporalMode) -> None:
    *_, part = parts(config)
    check(InTime(part.block, mode), input_of(part))


class Dice:
    """Chooses at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        return self._random.choice(choices)


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
    check(decoder, torch.randn(1, latents.channels, 3 if latents.spatial == 8 else 2, 2, 3))
