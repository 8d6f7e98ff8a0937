"""Memory and package size of a decoder before it is trained, against programs and packages that are really made."""

import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch

from nas.core_ml.convert import to_core_ml
from nas.core_ml.liveness import peak_activations
from nas.core_ml.one_decode import OneDecode
from nas.core_ml.program import Operation, Value, read_program
from nas.export.footprint import footprint
from nas.latency import Workload
from search_spaces import PRESETS, SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, adapt, build_skeleton

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
WORKLOAD = Workload(64, 64, 5)


def proposal(space: str, seed: int) -> DecoderConfig:
    """A random decoder of a space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return SEARCH_SPACES[space].suggest(study.ask(), LATENTS)


def value(name: str, *shape: int) -> Value:
    return Value(name, shape, "fp16")


def test_what_is_alive_at_once() -> None:
    """x and y until z is there; a reshape takes nothing; w is read by nobody, so it is returned."""
    x, y, flat, z, w = value("x", 10), value("y", 30), value("flat", 5, 6), value("z", 5), value("w", 2)
    operations = [
        Operation("conv", {"x": x}, (y,)),
        Operation("reshape", {"x": y}, (flat,)),
        Operation("conv", {"x": flat}, (z,)),
        Operation("add", {"x": x, "y": z}, (w,)),
    ]
    assert peak_activations(operations) == 2 * (10 + 30 + 5)
    assert peak_activations(operations[3:]) == 2 * (10 + 5 + 2)
    assert peak_activations([]) == 0


@pytest.mark.parametrize(
    "config",
    [replace(adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS, 16), shortcut=None), proposal("hybrid", 3)],
    ids=["published", "hybrid"],
)
def test_it_is_that_of_the_whole_program_and_of_the_package_on_disk(config: DecoderConfig, tmp_path: Path) -> None:
    found = footprint(build_skeleton(config), WORKLOAD)
    decoder = Decoder(config).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.uniform_(0.5, 1.5)
    latents = torch.zeros(1, *LATENTS.latent_shape(WORKLOAD.num_frames, WORKLOAD.height, WORKLOAD.width))
    path = tmp_path / "decoder.mlpackage"
    to_core_ml(OneDecode(decoder), (latents,)).save(str(path))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert found.size == pytest.approx(size, rel=0.05)
    assert found.memory == pytest.approx(peak_activations(read_program(path).operations), rel=0.02)


def test_what_parts_become_is_remembered_so_that_it_costs_little() -> None:
    skeleton = build_skeleton(proposal("hybrid", 3))
    first = footprint(skeleton, WORKLOAD)
    started = time.perf_counter()
    assert footprint(skeleton, WORKLOAD) == first
    assert time.perf_counter() - started < 0.5


def test_memory_grows_with_the_size_of_the_decode_and_the_package_does_not() -> None:
    skeleton = build_skeleton(adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS, 16))
    small, large = footprint(skeleton, WORKLOAD), footprint(skeleton, Workload(128, 64, 5))
    assert large.memory == pytest.approx(2 * small.memory, rel=0.05)
    assert large.size == pytest.approx(small.size, rel=0.02)
