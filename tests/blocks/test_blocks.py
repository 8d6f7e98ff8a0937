"""The contract over every registered part and every option, and what the registry refuses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import torch
from einops import rearrange

from blocks import Block, BlockConfig, block_config, build_block, choice, get_block, list_blocks, register_block
from blocks.registry import _REGISTRY, Role
from blocks.time_context import TimeContext
from nas.testing.block_cases import describe_options
from nas.testing.block_contract import CHECKS
from nas.testing.block_parts import each_option

SLOW_CHECKS = {"export", "core_ml"}
"""Seconds each."""

NEEDED = {
    "block": {
        *("dense_conv3d", "depthwise_separable_conv3d", "factorized_conv3d", "memory_conv2d", "residual_conv2d"),
        *("inverted_bottleneck3d", "memory_convnext2d", "low_rank_conv3d", "reparameterized_conv3d"),
        "frame_attention2d",
    },
    "upsampler": {
        *("decoupled_pixel_shuffle3d", "pixel_shuffle3d", "nearest_conv3d", "trilinear_conv3d"),
        *("nearest_conv2d", "nearest_conv2plus1d", "pixel_shuffle2d"),
    },
    "stem": {"conv3d_stem", "conv2d_stem"},
    "head": {"conv3d_head", "pixel_shuffle_head", "staged_pixel_shuffle_head", "haar_head"},
    "shortcut": {"linear_shortcut"},
}
"""Parts that the search spaces and the published decoders are made of."""


def cases() -> Iterator[Any]:
    """Every check for every option of every part, e.g. `memory_conv2d-kernel_size=3,depth=2-causality`.

    Quick are the defaults without conversions.
    """
    for name in list_blocks():
        default = get_block(name).Config()
        for config in each_option(default):
            for check in CHECKS:
                slow = config != default or check in SLOW_CHECKS
                yield pytest.param(
                    config, check, id=f"{describe_options(config)}-{check}", marks=[pytest.mark.slow] if slow else []
                )


@pytest.mark.parametrize(("config", "check"), list(cases()))
def test_contract(config: BlockConfig, check: str) -> None:
    CHECKS[check](config)


def test_the_contract_has_a_check_for_every_promise() -> None:
    promised = {"shape", "gradient", "causality", "batch_independence", "json", "half_precision", "macs", "export"}
    assert promised | {"core_ml", "streaming"} <= CHECKS.keys()


@pytest.mark.parametrize("role", NEEDED)
def test_parts_of_every_role_are_found(role: Role) -> None:
    assert set(list_blocks(role)) >= NEEDED[role]
    assert set(list_blocks(role)) <= set(list_blocks())
    assert list_blocks(role) == sorted(list_blocks(role))


def test_every_part_has_one_role() -> None:
    by_role = [name for role in get_args(Role) for name in list_blocks(role)]
    assert sorted(by_role) == list_blocks()


@pytest.fixture
def registry() -> Iterator[dict[str, type[Block]]]:
    """The registry, put back after the test."""
    kept = dict(_REGISTRY)
    yield _REGISTRY
    _REGISTRY.clear()
    _REGISTRY.update(kept)


def make_part() -> type[Block]:
    """A class that could be registered, once."""

    class Part(Block):
        @dataclass(frozen=True)
        class Config(BlockConfig):
            kernel_size: int = choice(3, 5)
            gain: float = choice(1.0, 0.5)
            bias: bool = choice(True, False)

        def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
            super().__init__()
            self.widths = (in_channels, out_channels)

    return Part


def test_a_registered_part_is_known_by_its_name(registry: dict[str, type[Block]]) -> None:
    part = register_block("zigzag", label="zz")(make_part())
    assert get_block("zigzag") is part
    assert (part.name, part.label, part.role) == ("zigzag", "zz", "block")
    assert "zigzag" in list_blocks("block") and "zigzag" not in list_blocks("head")
    built = build_block(part.Config(), 4, out_channels=8)
    assert isinstance(built, part) and built.widths == (4, 8)


def test_options_are_every_combination_the_default_first(registry: dict[str, type[Block]]) -> None:
    config = register_block("zigzag", label="zz")(make_part()).Config
    assert config.choices() == {"kernel_size": (3, 5), "gain": (1.0, 0.5), "bias": (True, False)}
    found = list(config.all_configs())
    assert found[0] == config() and len(found) == len(set(found)) == 8


def test_json_keeps_options_and_name(registry: dict[str, type[Block]]) -> None:
    config = register_block("zigzag", label="zz")(make_part()).Config
    assert config().to_dict() == {"name": "zigzag", "kernel_size": 3, "gain": 1.0, "bias": True}
    options: dict[str, Any] = {"bias": False, "kernel_size": 5}
    assert block_config({"name": "zigzag", **options}) == config(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "zigzag: kernel_size must be one of 3, 5, got 4"),
        ({"kernel_size": 3.0}, "zigzag: kernel_size must be one of 3, 5, got 3.0"),
        ({"kernel_size": "3"}, "zigzag: kernel_size must be one of 3, 5, got '3'"),
        ({"bias": 1}, "zigzag: bias must be one of True, False, got 1"),
        ({"kernel_sise": 3}, "zigzag has no option 'kernel_sise': known: kernel_size, gain, bias"),
    ],
)
def test_a_wrong_option_is_refused(registry: dict[str, type[Block]], options: dict[str, Any], message: str) -> None:
    register_block("zigzag", label="zz")(make_part())
    with pytest.raises(ValueError) as caught:
        block_config({"name": "zigzag", **options})
    assert str(caught.value) == message


def test_an_unknown_name_gives_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError) as caught:
        get_block("dens_conv3d")
    assert str(caught.value) == (
        f"unknown block 'dens_conv3d': did you mean 'dense_conv3d'? known: {', '.join(list_blocks())}"
    )
    with pytest.raises(ValueError, match=r"^unknown block 'qqqq': known: conv2d_stem, "):
        block_config({"name": "qqqq"})


def test_a_name_is_given_once(registry: dict[str, type[Block]]) -> None:
    with pytest.raises(ValueError, match=r"^block name 'dense_conv3d' is taken by blocks\.dense_conv3d\.DenseConv3d$"):
        register_block("dense_conv3d", label="other")(make_part())
    assert get_block("dense_conv3d").label == "conv3d"


def test_an_unknown_role_is_refused(registry: dict[str, type[Block]]) -> None:
    wrong: Any = "tail"
    roles = "stem, block, upsampler, head, shortcut"
    with pytest.raises(ValueError, match=f"^zigzag: role must be one of {roles}, got 'tail'$"):
        register_block("zigzag", label="zz", role=wrong)(make_part())
    assert "zigzag" not in registry


def test_an_option_without_choice_is_refused(registry: dict[str, type[Block]]) -> None:
    class Part(Block):
        @dataclass(frozen=True)
        class Config(BlockConfig):
            kernel_size: int = choice(3)
            dilation: int = 1

    with pytest.raises(ValueError, match=r"^zigzag: declare option 'dilation' with choice\(\.\.\.\)"):
        register_block("zigzag", label="zz")(Part)
    assert "zigzag" not in registry


def test_a_config_that_is_no_frozen_dataclass_is_refused(registry: dict[str, type[Block]]) -> None:
    class Undecorated(Block):
        class Config(BlockConfig):
            kernel_size: int = choice(3)

    class Missing(Block):
        pass

    class Foreign(Block):
        @dataclass(frozen=True)
        class Config:
            kernel_size: int = choice(3)

    with pytest.raises(ValueError, match=r"^zigzag: Config must be decorated with @dataclass\(frozen=True\)$"):
        register_block("zigzag", label="zz")(Undecorated)
    for part in (Missing, Foreign):
        with pytest.raises(ValueError, match=r"^zigzag: the class needs its own nested `class Config\(BlockConfig\)`$"):
            register_block("zigzag", label="zz")(part)
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        dataclass(type("Config", (BlockConfig,), {}))
    assert "zigzag" not in registry


def test_a_config_of_another_part_is_refused(registry: dict[str, type[Block]]) -> None:
    owner = register_block("zigzag", label="zz")(make_part())

    class Borrower(Block):
        Config = owner.Config

    # The config says which part to build, so it cannot be of two.
    with pytest.raises(ValueError, match=r"^borrower: the class needs its own nested `class Config\(BlockConfig\)`"):
        register_block("borrower", label="br")(Borrower)
    assert owner.Config.name == "zigzag" and "borrower" not in registry


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), r"choice\(\) needs distinct options, got \(\)"),
        ((3, 3), r"choice\(\) needs distinct options, got \(3, 3\)"),
        ((3, (3, 5)), r"options must be str, int, float or bool \(they go into JSON\), got \(3, 5\)"),
        ((None,), "options must be str, int, float or bool .* got None"),
    ],
)
def test_options_that_json_does_not_keep_are_refused(options: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choice(*options)


@pytest.mark.parametrize("factors", [(2, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("drop", [False, True])
def test_ordinary_pixel_shuffle_is_one_rearrangement(factors: tuple[int, int], drop: bool) -> None:
    temporal, spatial = factors
    sizes = {"out_channels": 6, "temporal_factor": temporal, "spatial_factor": spatial}
    block = build_block(get_block("pixel_shuffle3d").Config(), 4, **sizes)
    x = torch.randn(2, 4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    time = TimeContext(2, "causal", drop_leading=drop)
    expanded = block.conv(x, time)  # type: ignore[operator]
    pattern = "b (c st sh sw) t h w -> b c (t st) (h sh) (w sw)"
    expected = rearrange(expanded, pattern, st=temporal, sh=spatial, sw=spatial)[:, :, temporal - 1 if drop else 0 :]
    assert block(x, time).equal(expected)
