"""Memory and package size of a decoder before it is trained, against programs and packages that are really made."""

import time
from pathlib import Path

import optuna
import pytest
import torch

from nas.core_ml.convert import to_core_ml
from nas.core_ml.liveness import peak_activations, weight_bytes
from nas.core_ml.one_decode import OneDecode
from nas.core_ml.program import read_program
from nas.core_ml.steps import Step, steps_of
from nas.export.footprint import footprint
from nas.latency import Workload
from search_spaces import PRESETS, SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, adapt

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
WORKLOAD = Workload(64, 64, 5)


def proposal(space: str, seed: int) -> DecoderConfig:
    """A random decoder of a space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return SEARCH_SPACES[space].suggest(study.ask(), LATENTS)


def step(op_type: str, reads: dict[int, int], writes: dict[int, int]) -> Step:
    """A step whose inputs and results have these numbers and elements; number -1 is a weight."""
    inputs = tuple(("x", (size,)) for size in reads.values())
    return Step(op_type, inputs, tuple((size,) for size in writes.values()), reads=tuple(reads), writes=tuple(writes))


def test_what_is_alive_at_once() -> None:
    """0 is given and read at the end; a reshape takes nothing; the last value is read by nobody, so it is returned."""
    steps = [
        step("conv", {0: 10, -1: 999}, {1: 30}),
        step("reshape", {1: 30}, {2: 30}),
        step("conv", {2: 30, -1: 1}, {3: 5}),
        step("add", {0: 10, 3: 5}, {4: 2}),
    ]
    assert peak_activations(steps) == 2 * (10 + 30 + 5)
    assert peak_activations(steps[3:]) == 2 * (10 + 5 + 2)
    assert peak_activations([]) == 0
    assert weight_bytes(steps) == 2 * 1000


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(proposal("hybrid", 3), id="hybrid"),
        pytest.param(adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS, 16), id="published", marks=pytest.mark.slow),
        pytest.param(proposal("hybrid", 2), id="wide", marks=pytest.mark.slow),
    ],
)
def test_it_is_that_of_the_whole_program_and_of_the_package_on_disk(config: DecoderConfig, tmp_path: Path) -> None:
    found = footprint(config, WORKLOAD)
    decoder = Decoder(config).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.uniform_(0.5, 1.5)
    latents = torch.zeros(1, *LATENTS.latent_shape(WORKLOAD.num_frames, WORKLOAD.height, WORKLOAD.width))
    path = tmp_path / "decoder.mlpackage"
    to_core_ml(OneDecode(decoder), (latents,)).save(str(path))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert found.size == pytest.approx(size, rel=0.05)
    assert found.memory == pytest.approx(peak_activations(steps_of(read_program(path).operations)), rel=0.02)


def test_what_parts_become_is_remembered_so_that_it_costs_little() -> None:
    config = proposal("hybrid", 3)
    first = footprint(config, WORKLOAD)
    started = time.perf_counter()
    assert footprint(config, WORKLOAD) == first
    assert time.perf_counter() - started < 0.1


def test_memory_grows_with_the_size_of_the_decode_and_the_package_does_not() -> None:
    config = adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS, 16)
    small, large = footprint(config, WORKLOAD), footprint(config, Workload(128, 64, 5))
    assert large.memory == pytest.approx(2 * small.memory, rel=0.05)
    assert large.size == pytest.approx(small.size, rel=0.02)
