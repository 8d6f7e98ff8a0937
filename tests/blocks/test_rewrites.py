"""Rewrites are exact: every part and whole decoders give the same, in one shot and in a stream."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from blocks import get_block, list_blocks
from blocks.layers.convolutions import BranchedConv, Conv3d, EnlargedConv2d
from blocks.layers.norms import ChannelLayerNorm, RmsNorm
from blocks.rewrites import (
    conv3d_as_joined_frames,
    conv3d_as_slices,
    fold_norms,
    merge_branches,
    scale_norms,
    subpixel_enlargements,
)
from blocks.time_context import TemporalMode, TimeContext
from nas.latency.prediction.operations import list_operations
from nas.testing.block_parts import each_option, parts, stream_every_way
from search_spaces import Decoder
from tests.support.small_decoders import SPECS, largest_difference, make_decoder, make_latents, small_config
from tests.support.trained_parts import trained

REWRITES: dict[str, Callable[[nn.Module, TemporalMode], int]] = {
    "branches": merge_branches,
    "norms": lambda module, mode: fold_norms(module),
    "enlargements": lambda module, mode: subpixel_enlargements(module),
    "slices": lambda module, mode: conv3d_as_slices(module),
    "joined frames": lambda module, mode: conv3d_as_joined_frames(module),
}
M = TypeVar("M", bound=nn.Module)
APPLIES = {
    "branches": {"reparameterized_conv3d"},
    "norms": {"inverted_bottleneck3d", "residual_conv2d"},
    "enlargements": {"nearest_conv2d", "nearest_conv2plus1d"},
}
"""Parts that a rewrite changes, where these are few."""


def rewritten(module: M, rewrite: str, mode: TemporalMode) -> tuple[M, int]:
    changed = copy.deepcopy(module)
    return changed, REWRITES[rewrite](changed, mode)


@pytest.mark.parametrize("rewrite", REWRITES)
@torch.no_grad()
def test_every_part_gives_the_same(rewrite: str) -> None:
    changed_parts = set()
    for name in list_blocks():
        for config in each_option(get_block(name).Config()):
            for part in map(trained, parts(config)):
                part.block.eval()
                x = part.input(3, 5, 7, batch=2)
                for mode in ("causal", "bidirectional"):
                    block, count = rewritten(part.block, rewrite, mode)
                    if count:
                        changed_parts.add(name)
                        got = replace(part, block=block).run(x, mode, drop_leading=True)
                        part.expect_equal(got, part.run(x, mode, drop_leading=True), f"{rewrite}, {mode}")
    assert changed_parts == APPLIES.get(rewrite, changed_parts) and changed_parts


def wan_like() -> Decoder:
    """A causal decoder in which every rewrite has something to do."""
    config = small_config(SPECS["16ch-4x8x8-leading"])
    first, second, third = config.stages
    branched = get_block("reparameterized_conv3d").Config()
    normed = get_block("residual_conv2d").Config(norm="batch")  # type: ignore[call-arg]
    nearest = get_block("nearest_conv2plus1d").Config()
    stages = replace(first, block=branched), replace(second, block=normed, upsampler=nearest), third
    return make_decoder(replace(config, stages=stages))


@pytest.mark.parametrize("rewrite", REWRITES)
@torch.no_grad()
def test_a_rewritten_decoder_streams_to_the_same_frames(rewrite: str) -> None:
    decoder = wan_like()
    latents = make_latents(decoder.config.latents, 4, 1, 2)
    whole = decoder(latents)
    changed, count = rewritten(decoder, rewrite, "causal")
    assert count
    for cuts, frames, _ in stream_every_way(changed.stream, latents):
        assert largest_difference(frames, whole) < 1e-5, cuts


@torch.no_grad()
def test_merged_and_at_the_small_size_it_has_less_to_compute() -> None:
    decoder = wan_like()
    latents = make_latents(decoder.config.latents, 3, 6, 6)
    simple = copy.deepcopy(decoder)
    for rewrite in ("branches", "norms", "enlargements"):
        assert REWRITES[rewrite](simple, "causal")
    assert largest_difference(simple(latents), decoder(latents)) < 1e-5
    before, after = (list_operations(module, latents.shape) for module in (decoder, simple))
    assert sum(operation.macs for operation in after) < sum(operation.macs for operation in before)
    kinds = {type(module).__name__ for module in simple.modules()}
    assert not kinds & {"BranchedConv", "BatchNorm", "EnlargedConv2d"}
    decoder.load_state_dict(decoder.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        decoder.load_state_dict(simple.state_dict())


@torch.no_grad()
def test_enlargement_at_the_small_size_costs_four_ninths() -> None:
    enlarged = nn.Sequential(EnlargedConv2d(8, 12, 2))
    x = torch.randn(2, 8, 16, 16)
    wanted = enlarged(x)
    before = sum(operation.macs for operation in list_operations(enlarged, x.shape))
    assert subpixel_enlargements(enlarged) == 1
    after = sum(operation.macs for operation in list_operations(enlarged, x.shape))
    assert largest_difference(enlarged(x), wanted) < 1e-5
    assert after / before == pytest.approx(4 / 9 * 17**2 / 16**2)


def test_slices_leave_no_3d_convolution_in_any_part() -> None:
    for name in list_blocks():
        for part in parts(get_block(name).Config()):
            merge_branches(part.block, "causal")
            conv3d_as_slices(part.block)
            assert not [module for module in part.block.modules() if isinstance(module, nn.Conv3d)], name


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(64, 1), (65, 1 / 2), (128, 1 / 2), (129, 1 / 4), (1000, 1 / 16), (10_000, 1 / 256), (60_000, 1 / 1024)],
)
@torch.no_grad()
def test_scaled_norms_give_the_same(largest: float, factor: float) -> None:
    """Loud and quiet positions, and those so quiet that eps counts."""
    loudness = torch.logspace(-6, 0, 35).view(1, 1, 5, 7) * largest
    x = loudness * (2 * torch.rand(3, 6, 5, 7, generator=torch.Generator().manual_seed(0)) - 1)
    norms = nn.Sequential(RmsNorm(), nn.Sequential(RmsNorm(1e-3), ChannelLayerNorm(6)))
    nn.init.normal_(norms[1][1].bias)  # type: ignore[index]
    scaled = copy.deepcopy(norms)
    named = {name: largest for name, norm in scaled.named_modules() if isinstance(norm, RmsNorm)}
    assert scale_norms(scaled, named) == (3 if factor < 1 else 0)
    for name in named:
        norm, same = norms.get_submodule(name), scaled.get_submodule(name)
        assert same.factor == factor
        assert torch.allclose(same(x), norm(x), rtol=1e-6, atol=0), name
    assert scaled.state_dict().keys() == norms.state_dict().keys()


def test_only_loud_norms_are_scaled() -> None:
    norms = nn.Sequential(RmsNorm(), RmsNorm(), RmsNorm())
    assert scale_norms(norms, {"0": 3.0, "1": 300.0}) == 1
    assert [norm.factor for norm in norms] == [1, 1 / 8, 1]


@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
@torch.no_grad()
def test_branches_are_a_sum_of_convolutions(mode: TemporalMode) -> None:
    """The plain kernel and one for time alone, for space alone and for each position alone."""
    conv = BranchedConv(6, 4, 3)
    x = torch.randn(2, 6, 4, 5, 7)
    time = TimeContext(2, mode, drop_leading=False)

    def single(weight: Tensor) -> Tensor:
        one = Conv3d(6, 4, tuple(weight.shape[2:]))  # type: ignore[arg-type]
        one.weight, one.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(4))
        return one(x, time)  # type: ignore[no-any-return]

    for branch in (conv.temporal, conv.spatial, conv.pointwise):
        nn.init.normal_(branch, std=0.1)
    assert conv.bias is not None
    bias = conv.bias.view(1, -1, 1, 1, 1)
    wanted = bias + sum(single(branch) for branch in (conv.weight, conv.temporal, conv.spatial, conv.pointwise))
    assert largest_difference(conv(x, time), wanted) < 1e-5
    assert largest_difference(conv.merged(mode)(x, time), wanted) < 1e-5
    assert type(conv.merged(mode)) is Conv3d
