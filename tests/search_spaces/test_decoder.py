"""Decoders of random configs, for the latents of every kind of teacher."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from blocks import block_config, get_block
from nas.core_ml.convert import export_program
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, StageConfig
from search_spaces.decoder import silence
from tests.support.small_decoders import (
    SPECS,
    largest_difference,
    make_config,
    make_decoder,
    make_latents,
    small_config,
    small_decoder,
)

SEEDS = range(3)


@pytest.fixture
def decoder() -> Decoder:
    return small_decoder()


def cases(specs: dict[str, LatentSpec]) -> Iterator[Any]:
    for space in SEARCH_SPACES:
        for name, spec in specs.items():
            for seed in SEEDS:
                yield pytest.param(space, spec, seed, id=f"{space}-{name}-{seed}")


@pytest.mark.parametrize(("space", "spec", "seed"), list(cases(SPECS)))
@torch.no_grad()
def test_as_many_frames_of_the_same_size_as_the_teacher(space: str, spec: LatentSpec, seed: int) -> None:
    decoder = make_decoder(make_config(space, spec, seed))
    for num_latents in (1, 2, 3):
        frames = decoder(make_latents(spec, num_latents, 2, 3))
        size = (2 * spec.spatial, 3 * spec.spatial)
        assert frames.shape == (1, 3, spec.num_frames(num_latents), *size)
        assert frames.isfinite().all() and frames.std() > 0


@pytest.mark.parametrize(("space", "spec", "seed"), list(cases(SPECS)))
@torch.no_grad()
def test_clips_of_a_batch_do_not_mix(space: str, spec: LatentSpec, seed: int) -> None:
    decoder = make_decoder(make_config(space, spec, seed))
    latents = torch.cat([make_latents(spec, 2), 3 * make_latents(spec, 2, seed=1) + 1])
    together = decoder(latents)
    for index in (0, 1):
        assert largest_difference(together[index : index + 1], decoder(latents[index : index + 1])) < 1e-5


@pytest.mark.parametrize("shape", [(1, 15, 2, 2, 2), (1, 17, 2, 2, 2), (16, 2, 2, 2), (2, 1, 16, 2, 2)])
def test_latents_of_another_kind_are_refused(decoder: Decoder, shape: tuple[int, ...]) -> None:
    for use in (decoder, decoder.stream):
        with pytest.raises(ValueError) as caught:
            use(torch.zeros(shape))
        assert str(caught.value) == f"expected latents (b, 16, t, h, w), got {shape}"


@torch.no_grad()
def test_features_are_the_stages_outputs(decoder: Decoder) -> None:
    spec = decoder.config.latents
    latents = make_latents(spec, 3, 2, 3, batch=2)
    frames, features = decoder.features(latents, (0, 2, 1))
    assert torch.equal(frames, decoder(latents)) and features.keys() == {0, 1, 2}
    assert [decoder.stage_grid(index) for index in range(3)] == [(1, 1), (2, 2), (4, 4)]
    assert [decoder.stage_channels(index) for index in range(3)] == [8, 12, 16]
    assert {index: tuple(feature.shape) for index, feature in features.items()} == {
        0: (2, 8, 3, 2, 3),
        1: (2, 12, 5, 4, 6),
        2: (2, 16, 9, 8, 12),
    }
    assert features[1].min() >= 0, "the memory block ends with a ReLU"
    assert decoder.features(latents, [1])[1].keys() == {1}


def test_a_stage_of_nothing_is_refused() -> None:
    config = small_config(SPECS["16ch-4x8x8-leading"])
    # It would have no output of its own for `features`.
    with pytest.raises(ValueError, match="a stage"):
        Decoder(replace(config, stages=(replace(config.stages[0], depth=0), *config.stages[1:])))


def test_stages_partition_the_parameters(decoder: Decoder) -> None:
    groups = decoder.stage_modules()
    assert list(groups) == ["stem", "stage0", "stage1", "stage2", "head"]
    grouped = [id(parameter) for group in groups.values() for parameter in group.parameters()]
    assert sorted(grouped) == sorted(id(parameter) for parameter in decoder.parameters())


def with_statistics(config: DecoderConfig, mean: bool) -> DecoderConfig:
    """The same decoder for latents with statistics far from 0 and 1."""
    channels = config.latents.channels
    means = tuple(0.5 * index - 3 for index in range(channels)) if mean else ()
    stds = tuple(0.25 + 0.5 * index for index in range(channels))
    return replace(config, latents=replace(config.latents, mean=means, std=stds))


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_folded_std_is_that_of_normalised_latents(name: str) -> None:
    config = with_statistics(small_config(SPECS[name]), mean=False)
    decoder, folded = make_decoder(config), make_decoder(config)
    folded.initialise_from_latent_statistics()
    normal = make_latents(config.latents, 3, 3, 3)
    raw = normal * torch.tensor(config.latents.std).view(1, -1, 1, 1, 1)
    assert largest_difference(folded(raw), decoder(normal)) < 1e-5
    assert largest_difference(decoder(raw), decoder(normal)) > 1e-2


@pytest.mark.parametrize("stem", ["conv3d_stem", "conv2d_stem"])
@torch.no_grad()
def test_folded_mean_is_that_of_normalised_latents_inside(stem: str) -> None:
    config = replace(small_config(SPECS["16ch-4x8x8-leading"]), stem=get_block(stem).Config())
    config = with_statistics(config, mean=True)
    decoder, folded = make_decoder(config), make_decoder(config)
    folded.initialise_from_latent_statistics()
    outputs: list[Tensor] = []
    for model in (decoder, folded):
        model.stem.register_forward_hook(lambda module, inputs, out: outputs.append(out))
    normal = make_latents(config.latents, 5, 4, 5)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents.mean, config.latents.std))
    decoder(normal)
    folded(normal * std + mean)
    if stem == "conv2d_stem":
        outputs = [rearrange(out, "t c h w -> 1 c t h w") for out in outputs]
    # At the edges the convolution pads raw latents with zeros, which are not the mean.
    inside = [out[:, :, 2:, 1:-1, 1:-1] for out in outputs]
    assert largest_difference(*inside) < 1e-4


@torch.no_grad()
def test_unknown_statistics_change_nothing(decoder: Decoder) -> None:
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.initialise_from_latent_statistics()
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())


def test_the_width_has_to_be_made_by_something() -> None:
    config = small_config(SPECS["16ch-4x8x8-leading"])
    stuck = StageConfig(width=24, depth=0, block=config.stages[0].block)
    with pytest.raises(ValueError, match="a stage 16 -> 24 channels needs an upsampler, a transition or a block"):
        Decoder(replace(config, stages=(*config.stages, stuck)))


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_a_shortcut_adds_to_the_heads_frames(name: str) -> None:
    plain = make_decoder(small_config(SPECS[name]))
    shortcut = block_config({"name": "linear_shortcut", "kernel_size": 3})
    decoder = make_decoder(replace(plain.config, shortcut=shortcut))
    latents = make_latents(plain.config.latents, 3, 2, 3, batch=2)
    together = decoder(latents)
    decoder.load_state_dict(plain.state_dict(), strict=False)
    added = decoder(latents) - plain(latents)
    assert together.shape == added.shape and largest_difference(added, torch.zeros_like(added)) > 1e-2
    silence(decoder.head)
    assert largest_difference(decoder(latents), added) < 1e-5
    assert list(decoder.stage_modules()) == [*plain.stage_modules(), "shortcut"]


@pytest.mark.slow
@torch.no_grad()
def test_a_whole_decoder_exports(decoder: Decoder) -> None:
    """With taps, streaming and shortcut in its code, there still is no control flow that depends on data."""
    config = replace(decoder.config, shortcut=get_block("linear_shortcut").Config())
    latents = make_latents(config.latents, 2)
    for whole in (decoder, make_decoder(config)):
        program: Any = export_program(whole, (latents,)).module()
        assert largest_difference(program(latents), whole(latents)) < 1e-5
