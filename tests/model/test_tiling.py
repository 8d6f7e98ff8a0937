"""Tiles give the frames of one decode: of presets, random decoders and streams; what sees whole frames is refused."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import Block, BlockConfig, TimeContext, get_block, register_block
from blocks.registry import _REGISTRY
from nas.model import TurboVAED
from nas.model.receptive_field import Reach, find_halo
from nas.model.tiling import Span, TiledDecoder
from nas.terminal.errors import UserError
from search_spaces import PRESETS, DecoderConfig, LatentSpec, adapt
from tests.model.test_model import frames_of, make_model
from tests.support.small_decoders import largest_difference, make_config, make_decoder, make_latents
from tests.support.small_targets import BIDIRECTIONAL, CONFIG, SPEC

EXACT = 1e-5
WAN = LatentSpec(channels=16, spatial=8, temporal=4)
IMAGES = LatentSpec(channels=4, spatial=4, temporal=1)


def check_tiles(config: DecoderConfig, latents: Tensor, height: int, width: int) -> None:
    """Tiles of so many latents against no tiles."""
    decoder, scale = make_decoder(config).to(latents.dtype), config.latents.spatial
    tiled = TiledDecoder(decoder, height * scale, width * scale)
    with torch.no_grad():
        assert largest_difference(tiled(latents), decoder(latents)) < EXACT


def check_two_tiles(config: DecoderConfig, num_latents: int, dtype: torch.dtype = torch.float32) -> None:
    """The smallest frame of which no tile sees everything."""
    rows, columns = find_halo(config)
    assert rows.before == rows.after and rows == columns
    latents = make_latents(config.latents, num_latents, 2 * rows.before + 2, 1)
    check_tiles(config, latents.to(dtype), rows.before + 1, 1)


@pytest.mark.parametrize("name", ["turbo_vaed_hunyuan", "turbo_vaed_cog", "flash_vaed_ltx", "taehv_wan"])
def test_presets_in_tiles(name: str) -> None:
    """Narrow, which changes nothing about how far they see."""
    check_two_tiles(adapt(PRESETS[name], PRESETS[name].latents, 32), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["turbo_vaed_dc", "turbo_vaed_ltx"])
def test_presets_with_staged_heads_in_tiles(name: str) -> None:
    """So narrow they norm a single channel, which keeps only its sign: rounding would matter there."""
    check_two_tiles(adapt(PRESETS[name], PRESETS[name].latents, 32), 1, torch.float64)


def test_the_presets_that_tile_are_all_but_one() -> None:
    for name in PRESETS.keys() - {"flash_vaed_wan"}:
        find_halo(adapt(PRESETS[name], WAN, 32))
    with pytest.raises(UserError, match="frame_attention2d sees the whole frame"):
        find_halo(adapt(PRESETS["flash_vaed_wan"], WAN, 32))


def sees_frames(config: DecoderConfig) -> bool:
    return any(stage.block.name == "frame_attention2d" for stage in config.stages)


RANDOM = [
    (space, seed)
    for space, count in (("hybrid", 6), ("turbo3d", 2), ("memory2d", 2))
    for seed in [seed for seed in range(40) if not sees_frames(make_config(space, WAN, seed))][:count]
]


@pytest.mark.parametrize(("space", "seed"), RANDOM)
def test_random_decoders_in_tiles(space: str, seed: int) -> None:
    check_two_tiles(make_config(space, WAN, seed), 2)


@pytest.mark.parametrize(
    "config",
    [CONFIG, BIDIRECTIONAL, adapt(PRESETS["taehv_wan"], IMAGES, 16)],
    ids=["causal", "bidirectional", "images"],
)
def test_a_batch_in_tiles(config: DecoderConfig) -> None:
    check_tiles(config, make_latents(config.latents, 3, 11, 9, batch=2), 3, 4)


def test_what_a_tile_needs_is_no_more_than_it_sees() -> None:
    """With one latent less around it the frames differ."""
    decoder, latents = make_decoder(CONFIG).double(), make_latents(SPEC, 2, 24, 2).double()
    tiled = TiledDecoder(decoder, 4 * SPEC.spatial)
    rows, columns = tiled.halos
    with torch.no_grad():
        wanted = decoder(latents)
        for less in (Reach(rows.before - 1, rows.after), Reach(rows.before, rows.after - 1)):
            tiled.halos = less, columns
            assert largest_difference(tiled(latents), wanted) > 1e-6
        tiled.halos = rows, columns
        assert largest_difference(tiled(latents), wanted) < 1e-6


def test_spans_are_as_few_and_as_equal_as_can_be() -> None:
    assert Span.cut(9, 9, Reach(2, 3)) == [Span(0, 9, 0, 9)]
    assert Span.cut(10, 9, Reach(2, 3)) == [Span(0, 5, 0, 8), Span(5, 10, 3, 10)]
    assert [span.end - span.first for span in Span.cut(90, 32, Reach(0, 0))] == [30, 30, 30]


def test_the_model_tiles_and_streams_in_tiles() -> None:
    """By the names of diffusers, also with the sizes that its VAEs take."""
    model, latents = make_model(), make_latents(SPEC, 3, 12, 6, batch=2)
    wanted = frames_of(model, latents)
    sizes: list[dict[str, Any]] = [{}, {"tile_sample_min_height": 14, "tile_sample_min_width": 12}]
    for size in sizes:
        model.enable_tiling(**size)
        assert largest_difference(frames_of(model, latents), wanted) < EXACT
        for cuts in ([3], [1, 2], [2, 1]):
            streamed = torch.cat(list(model.stream(torch.split(latents, cuts, dim=2))), dim=2)
            assert largest_difference(streamed, wanted) < EXACT, (size, cuts)
    model.enable_tiling(16, 16, 12, 12)
    model.enable_slicing()
    assert largest_difference(frames_of(model, latents), wanted) < EXACT
    model.disable_slicing()
    model.disable_tiling()
    assert torch.equal(frames_of(model, latents), wanted)


def test_two_streams_share_a_model_in_tiles() -> None:
    model, latents = make_model().double(), make_latents(SPEC, 2, 12, 10, batch=2)
    wanted = frames_of(model, latents)
    model.enable_tiling(16, 16)
    streams = [model.stream(torch.split(latents[row : row + 1], 1, dim=2)) for row in (0, 1)]
    pieces = [[next(streams[row]) for row in (0, 1)] for _ in range(2)]
    streamed = torch.cat([torch.cat(rows) for rows in pieces], dim=2)
    assert largest_difference(streamed, wanted) < EXACT


def test_only_what_tiles_need_is_alive() -> None:
    """No tile is decoded with more latents than its own and its halo, and one latent frame at a time."""
    model, latents, seen = make_model(), make_latents(SPEC, 3, 24, 5), list[torch.Size]()
    rows, _ = find_halo(CONFIG)
    model.decoder.stem.register_forward_pre_hook(lambda part, arguments: seen.append(arguments[0].shape))
    model.enable_tiling(32)
    frames_of(model, latents)
    assert len(seen) == 3 * 3 and {shape[2] for shape in seen} == {1}
    assert max(shape[3] for shape in seen) == 8 + rows.before + rows.after < 24


def test_gradients_go_through_tiles() -> None:
    """As they do through one decode, also to a causal decoder."""
    model, latents = make_model(), make_latents(SPEC, 3, 8, 8)
    grads: list[Tensor] = []
    for tile in (None, 12):
        if tile:
            model.enable_tiling(tile, tile)
        leaf = latents.clone().requires_grad_()
        model.decode(leaf).sample.square().mean().backward()
        assert leaf.grad is not None
        grads.append(leaf.grad)
    assert torch.allclose(grads[0], grads[1], atol=1e-6)


def test_attention_is_named_and_nothing_changes() -> None:
    config = replace(
        CONFIG, stages=(replace(CONFIG.stages[0], block=get_block("frame_attention2d").Config()), CONFIG.stages[1])
    )
    model: TurboVAED = TurboVAED(config.to_dict(), "formula").eval()
    latents = make_latents(SPEC, 2, 5, 5)
    wanted = frames_of(model, latents)
    with pytest.raises(UserError, match=r"same frames \(frame_attention2d sees the whole frame\): .* stream\(chunks\)"):
        model.enable_tiling()
    assert torch.equal(frames_of(model, latents), wanted)


def test_a_tile_has_pixels() -> None:
    with pytest.raises(UserError, match="at least 1 pixel a side, got 0"):
        make_model().enable_tiling(0)


class Strange(Block):
    """The parts below differ in what they do with a frame; all are plugins that declare nothing."""

    input_layout = output_layout = "frames"

    def __init__(self, config: BlockConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv: Any = nn.Conv2d(in_channels, out_channels, 3, padding=1)


def normed_over_space(self: Strange, x: Tensor, time: TimeContext) -> Tensor:
    out: Tensor = self.conv(x / x.square().mean(dim=(2, 3), keepdim=True).add(1e-6).sqrt())
    return out


def told_its_place(self: Strange, x: Tensor, time: TimeContext) -> Tensor:
    out: Tensor = self.conv(x + torch.arange(x.shape[2], dtype=x.dtype)[:, None] / 16)
    return out


def gated(self: Strange, x: Tensor, time: TimeContext) -> Tensor:
    hidden = self.conv(x)
    return x + torch.where(hidden > 0, hidden, 0)


def in_windows(self: Strange, x: Tensor, time: TimeContext) -> Tensor:
    means = nn.functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    out: Tensor = self.conv(x) + nn.functional.interpolate(means, scale_factor=2.0)[..., : x.shape[2], : x.shape[3]]
    return out


def far_down(self: Strange, x: Tensor, time: TimeContext) -> Tensor:
    """Sees three rows above, one below: how far is not the same on all sides."""
    out: Tensor = self.conv(x) + nn.functional.pad(x, (0, 0, 3, 0))[:, :, :-3]
    return out


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


def with_block(forward: Any) -> DecoderConfig:
    options: Any = dataclass(frozen=True)(type("Config", (BlockConfig,), {}))
    made = type("Made", (Strange,), {"forward": forward, "Config": options})
    register_block("strange", label="strange")(made)
    stage = replace(CONFIG.stages[0], width=CONFIG.stages[0].width, block=get_block("strange").Config())
    first = replace(CONFIG.stages[0], depth=1)
    return replace(CONFIG, stages=(first, stage, CONFIG.stages[1]))


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (normed_over_space, "strange sees the whole frame"),
        (told_its_place, "how far strange sees cannot be told"),
        (gated, "how far strange sees cannot be told"),
        (in_windows, "how far strange sees cannot be told"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_parts_of_others_that_cannot_be_tiled(forward: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        find_halo(with_block(forward))


@pytest.mark.usefixtures("registry")
def test_a_part_that_sees_further_up_than_down() -> None:
    config = with_block(far_down)
    rows, columns = find_halo(config)
    assert rows.before == rows.after + 2 and columns.before == columns.after
    check_tiles(config, make_latents(SPEC, 2, 20, 4), 3, 3)
