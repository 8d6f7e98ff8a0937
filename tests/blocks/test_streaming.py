"""Streams: every way of cutting latents into chunks gives what one shot gives, in bounded memory."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import get_block
from blocks.time_context import State
from nas.testing.block_parts import stream_every_way
from search_spaces import SEARCH_SPACES, Decoder, LatentSpec
from tests.support.small_decoders import (
    SPECS,
    largest_difference,
    make_config,
    make_decoder,
    make_latents,
    small_config,
    small_decoder,
)

STREAMED = {name: spec for name, spec in SPECS.items() if spec.causal and spec.frame_rule == "leading"}


@pytest.fixture
def decoder() -> Decoder:
    return small_decoder()


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


def tensors() -> list[Tensor]:
    """All that anything refers to."""
    gc.collect()
    return [x for x in gc.get_objects() if is_tensor(x)]


def storages(of: list[Tensor]) -> dict[int, int]:
    """Bytes of each storage by its address."""
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in of}


def is_tensor(x: object) -> bool:
    return type(x) in (Tensor, nn.Parameter)


@torch.no_grad()
def test_a_stream_of_200_latents_takes_constant_memory(decoder: Decoder) -> None:
    """And gives the frames of one decode."""
    spec = decoder.config.latents
    latents = make_latents(spec, 200, 1, 1)
    whole = decoder(latents)
    state: State | None = None
    others = tensors()  # kept, so that nothing else takes their place
    known = storages(others)
    start, memory = 0, []
    for index, length in enumerate((5, 1, 2, 9, 3) * 10):
        frames, state = decoder.stream(latents[:, :, start : start + length], state)
        first = spec.num_frames(start) if start else 0
        assert largest_difference(frames, whole[:, :, first : first + frames.shape[2]]) < 1e-5
        del frames
        start += length
        if index in (2, 27, 49):
            memory.append(sum(size for address, size in storages(tensors()).items() if address not in known))
    assert start == 200 and len(memory) == 3 and len(set(memory)) == 1 and memory[0] > 0


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


def test_the_state_of_another_decoder_is_refused(decoder: Decoder) -> None:
    latents = make_latents(decoder.config.latents, 1)
    _, state = decoder.stream(latents)
    with pytest.raises(ValueError, match="the state has too few tensors: it is of another decoder"):
        decoder.stream(latents, state[:-1])
    with pytest.raises(ValueError, match="1 state tensors were not used: the state is of another decoder"):
        decoder.stream(latents, (*state, state[-1]))


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
