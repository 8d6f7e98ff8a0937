"""Decoders of random configs, for the latents of every kind of teacher."""

import gc
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from block_contract import stream_every_way
from einops import rearrange
from torch import Tensor, nn

from blocks import block_config, get_block
from blocks.time_context import State
from nas.export.coreml import export_program
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, StageConfig

SPECS = {
    "16ch-4x8x8-leading": LatentSpec(channels=16, spatial=8, temporal=4),
    "48ch-4x16x16-leading": LatentSpec(channels=48, spatial=16, temporal=4),
    "12ch-6x8x8-leading": LatentSpec(channels=12, spatial=8, temporal=6),
    "16ch-4x8x8-leading_if_odd": LatentSpec(channels=16, spatial=8, temporal=4, frame_rule="leading_if_odd"),
    "128ch-4x32x32-multiple": LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False),
    "128ch-8x32x32-leading": LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
}
STREAMED = {name: spec for name, spec in SPECS.items() if spec.causal and spec.frame_rule == "leading"}
SEEDS = range(3)


class Narrow:
    """Chooses at random, but small: one of the two smallest widths, depths and numbers of stages."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        if ".width" in name or name.endswith((".depth", "upsampling_stages")):
            # Before a head that shuffles by 4, at least 4 x 16 channels: a norm over one channel keeps only its sign.
            fitting = [choice for choice in choices if choice >= 64 or not name.endswith(".by16")]
            return self.random.choice(sorted(fitting)[:2])
        return self.random.choice(list(choices))


def cases(specs: dict[str, LatentSpec]) -> Iterator[Any]:
    for space in SEARCH_SPACES:
        for name, spec in specs.items():
            for seed in SEEDS:
                yield pytest.param(space, spec, seed, id=f"{space}-{name}-{seed}")


def make_config(space: str, spec: LatentSpec, seed: int) -> DecoderConfig:
    return SEARCH_SPACES[space].suggest(Narrow(seed), spec)


def make_decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Decoder(config).eval()


def make_latents(
    spec: LatentSpec, frames: int, height: int = 2, width: int = 2, batch: int = 1, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, spec.channels, frames, height, width, generator=generator)


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@pytest.fixture
def decoder() -> Decoder:
    """A small causal one: a 3-D stage, a stage with memory that doubles time and space, one that doubles both again."""
    return make_decoder(small_config(SPECS["16ch-4x8x8-leading"]))


def small_config(spec: LatentSpec) -> DecoderConfig:
    shuffle = get_block("decoupled_pixel_shuffle3d").Config()
    memory = get_block("memory_conv2d").Config()
    return DecoderConfig(
        latents=spec,
        stem=get_block("conv3d_stem").Config(),
        stages=(
            StageConfig(8, 1, get_block("dense_conv3d").Config()),
            StageConfig(12, 1, memory, upsampler=shuffle, temporal_factor=2, spatial_factor=2),
            StageConfig(16, 0, memory, upsampler=shuffle, temporal_factor=spec.temporal // 2, spatial_factor=2),
        ),
        head=get_block("pixel_shuffle_head").Config(),
        temporal_mode="causal" if spec.causal else "bidirectional",
    )


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


def streamed() -> Iterator[Any]:
    """Ten random causal decoders of every space, for all kinds of latents that stream."""
    for space in SEARCH_SPACES:
        for seed in range(10):
            spec = list(STREAMED.values())[seed % len(STREAMED)]
            yield pytest.param(space, spec, seed, id=f"{space}-{seed}", marks=[pytest.mark.slow] if seed > 1 else [])


@pytest.mark.parametrize(("space", "spec", "seed"), list(streamed()))
@torch.no_grad()
def test_every_split_of_7_latents_streams_to_what_one_shot_gives(space: str, spec: LatentSpec, seed: int) -> None:
    decoder = make_decoder(make_config(space, spec, seed))
    latents = make_latents(spec, 7, 1, 2)
    whole = decoder(latents)
    count = 0
    for cuts, frames, _ in stream_every_way(decoder.stream, latents):
        count += 1
        assert largest_difference(frames, whole) < 1e-5, cuts
    assert count == 64


@torch.no_grad()
def test_chunks_have_the_teachers_number_of_frames(decoder: Decoder) -> None:
    spec = decoder.config.latents
    latents = make_latents(spec, 5, batch=2)
    for cuts in combinations(range(1, 5), 2):
        state: State | None = None
        for start, end in pairwise((0, *cuts, 5)):
            frames, state = decoder.stream(latents[:, :, start:end], state)
            assert frames.shape[2] == spec.num_frames(end) - (spec.num_frames(start) if start else 0)


def bytes_of_tensors() -> int:
    """Of all tensors that anything refers to."""
    gc.collect()
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in gc.get_objects() if is_tensor(x)}
    return sum(storages.values())


def is_tensor(x: object) -> bool:
    return type(x) in (Tensor, nn.Parameter)


@torch.no_grad()
def test_a_stream_of_200_latents_takes_constant_memory(decoder: Decoder) -> None:
    """And gives the frames of one decode."""
    spec = decoder.config.latents
    latents = make_latents(spec, 200, 1, 1)
    whole = decoder(latents)
    state: State | None = None
    start, memory = 0, []
    for index, length in enumerate((5, 1, 2, 9, 3) * 10):
        frames, state = decoder.stream(latents[:, :, start : start + length], state)
        first = spec.num_frames(start) if start else 0
        assert largest_difference(frames, whole[:, :, first : first + frames.shape[2]]) < 1e-5
        del frames
        start += length
        if index in (2, 27, 49):
            memory.append(bytes_of_tensors())
    assert start == 200 and len(memory) == 3 and len(set(memory)) == 1


@torch.no_grad()
def test_a_stream_is_bounded_and_keeps_no_gradient(decoder: Decoder) -> None:
    spec = decoder.config.latents
    state: State | None = None
    sizes = set()
    with torch.enable_grad():
        for seed in range(4):
            frames, state = decoder.stream(make_latents(spec, 1 + seed, seed=seed), state)
            sizes.add(sum(tensor.numel() for tensor in state))
            assert frames.requires_grad and not any(tensor.requires_grad for tensor in state)
    assert len(sizes) == 1


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.causal])
@torch.no_grad()
def test_nothing_looks_ahead_where_the_teacher_does_not(name: str) -> None:
    spec = SPECS[name]
    decoder = make_decoder(small_config(spec))
    latents = make_latents(spec, 5)
    changed = latents.clone()
    changed[:, :, 3:] = 7.0
    seen = spec.num_frames(3)
    whole, other = decoder(latents), decoder(changed)
    assert largest_difference(whole[:, :, :seen], other[:, :, :seen]) < 1e-5
    assert largest_difference(whole[:, :, seen : seen + 1], other[:, :, seen : seen + 1]) > 1e-3


@torch.no_grad()
def test_a_bidirectional_decoder_looks_ahead_and_does_not_stream() -> None:
    spec = SPECS["128ch-8x32x32-leading"]
    decoder = make_decoder(make_config("turbo3d", spec, 0))
    latents = make_latents(spec, 3)
    changed = latents.clone()
    changed[:, :, 2] = 7.0
    assert largest_difference(decoder(latents)[:, :, :1], decoder(changed)[:, :, :1]) > 1e-6
    with pytest.raises(ValueError, match="only a causal decoder streams, but the temporal mode is 'bidirectional'"):
        decoder.stream(latents)


def test_latents_whose_number_decides_do_not_stream() -> None:
    decoder = make_decoder(small_config(SPECS["16ch-4x8x8-leading_if_odd"]))
    with pytest.raises(ValueError, match="'leading_if_odd' cannot stream: it needs their whole number"):
        decoder.stream(make_latents(decoder.config.latents, 2))


@pytest.mark.parametrize("shape", [(1, 15, 2, 2, 2), (1, 17, 2, 2, 2), (16, 2, 2, 2), (2, 1, 16, 2, 2)])
def test_latents_of_another_kind_are_refused(decoder: Decoder, shape: tuple[int, ...]) -> None:
    for use in (decoder, decoder.stream):
        with pytest.raises(ValueError) as caught:
            use(torch.zeros(shape))
        assert str(caught.value) == f"expected latents (b, 16, t, h, w), got {shape}"


def test_the_state_of_another_decoder_is_refused(decoder: Decoder) -> None:
    latents = make_latents(decoder.config.latents, 1)
    _, state = decoder.stream(latents)
    with pytest.raises(ValueError, match="the state has too few tensors: it is of another decoder"):
        decoder.stream(latents, state[:-1])
    with pytest.raises(ValueError, match="1 state tensors were not used: the state is of another decoder"):
        decoder.stream(latents, (*state, state[-1]))


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
    decoder.silence_head()
    assert largest_difference(decoder(latents), added) < 1e-5
    assert list(decoder.stage_modules()) == [*plain.stage_modules(), "shortcut"]


@torch.no_grad()
def test_a_decoder_with_a_shortcut_streams() -> None:
    shortcut = get_block("linear_shortcut").Config()
    config = replace(small_config(SPECS["16ch-4x8x8-leading"]), shortcut=shortcut, temporal_mode="causal")
    decoder, latents = make_decoder(config), make_latents(config.latents, 5, 2, 3, batch=2)
    state, frames = None, []
    for chunk in torch.split(latents, [1, 3, 1], dim=2):
        part, state = decoder.stream(chunk, state)
        frames.append(part)
    assert largest_difference(torch.cat(frames, dim=2), decoder(latents)) < 1e-5


@pytest.mark.slow
@torch.no_grad()
def test_a_whole_decoder_exports(decoder: Decoder) -> None:
    """With taps, streaming and shortcut in its code, there still is no control flow that depends on data."""
    config = replace(decoder.config, shortcut=get_block("linear_shortcut").Config())
    latents = make_latents(config.latents, 2)
    for whole in (decoder, make_decoder(config)):
        program: Any = export_program(whole, (latents,)).module()
        assert largest_difference(program(latents), whole(latents)) < 1e-5
