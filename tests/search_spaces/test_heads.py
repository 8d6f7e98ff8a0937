"""Heads are chosen by what they declare, never by their name: shown with a head that nothing knows beforehand."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks import Block, BlockConfig, TimeContext, choice, get_block, list_blocks, register_block
from blocks.registry import _REGISTRY
from nas.testing.space_contract import random_walks
from search_spaces import PRESETS, Decoder, LatentSpec, adapt
from search_spaces.head_widths import HeadWidths
from search_spaces.space import Level, SearchSpace
from tests.search_spaces.test_spaces import Odometer

ROOT = Path(__file__).parents[2]
WAN = LatentSpec(channels=16, spatial=8, temporal=4)


class ThirdsHead(Block):
    """A third of the channels for each colour, shuffled; upsamples by 2 or more."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        kernel_size: int = choice(1)

    @classmethod
    def supports_factor(cls, spatial_factor: int) -> bool:
        return spatial_factor > 1

    @classmethod
    def width_multiple(cls, spatial_factor: int) -> int:
        return 3 * spatial_factor

    def __init__(self, config: Config, in_channels: int, spatial_factor: int) -> None:
        super().__init__()
        if in_channels % self.width_multiple(spatial_factor):
            raise ValueError(f"{in_channels} channels are no multiple of {self.width_multiple(spatial_factor)}")
        self.factor = spatial_factor
        self.conv = nn.Conv2d(in_channels, 3 * spatial_factor**2, 1, groups=3)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        return functional.pixel_shuffle(self.conv(x), self.factor)


@pytest.fixture(autouse=True)
def thirds_head() -> Iterator[None]:
    register_block("thirds_head", label="thirds", role="head")(ThirdsHead)
    yield
    del _REGISTRY["thirds_head"]
    ThirdsHead.Config.name = ""


def space(*heads: str, widths: tuple[int, ...] = (16, 24, 36, 48)) -> SearchSpace:
    return SearchSpace(
        name="thirds",
        description="a head that nothing knows",
        stems=("conv2d_stem",),
        levels=(Level(("memory_conv2d",), widths=(16,), depths=(1,)), Level(("memory_conv2d",), widths, depths=(1,))),
        upsamplers=("nearest_conv2d",),
        heads=heads,
        plain_heads=("conv3d_head",),
    )


def test_what_heads_declare() -> None:
    declared = {
        (name, factor): (get_block(name).width_multiple(factor), get_block(name).least_width(factor))
        for name in list_blocks("head")
        for factor in (1, 2, 4)
        if get_block(name).supports_factor(factor)
    }
    assert declared == {
        ("conv3d_head", 1): (1, 1),
        ("pixel_shuffle_head", 1): (1, 1),
        **{(name, factor): (1, 1) for name in ("haar_head", "pixel_shuffle_head") for factor in (2, 4)},
        ("staged_pixel_shuffle_head", 2): (4, 16),
        ("staged_pixel_shuffle_head", 4): (16, 64),
        ("thirds_head", 2): (6, 24),
        ("thirds_head", 4): (12, 48),
    }


def test_a_width_is_raised_until_it_fits() -> None:
    assert [HeadWidths(6, 24).fit(width) for width in (1, 24, 25, 30, 31)] == [24, 24, 30, 30, 36]
    assert [HeadWidths().fit(width) for width in (1, 17)] == [1, 17]
    assert HeadWidths.before("thirds_head", 4) == HeadWidths(12, 48)


@torch.no_grad()
def test_a_space_offers_the_widths_that_fit_a_new_head() -> None:
    family = space("thirds_head", "staged_pixel_shuffle_head")
    seen: dict[tuple[str, str], set[int]] = {}
    for config in random_walks(family, WAN, 100):
        if config.head_factor == 1:
            continue
        (name,) = (name for name in family.params(config) if ".width.by" in name)
        seen.setdefault((config.head.name, name), set()).add(config.stages[-1].width)
        with torch.device("meta"):
            assert Decoder(config)(torch.empty(1, 16, 1, 1, 1)).shape == (1, 3, 1, 8, 8)
    assert seen == {  # for 4x in time there are two upsampling stages at least, so the head makes no more than 2
        ("thirds_head", "stage2.width.by6"): {24, 36, 48},
        ("staged_pixel_shuffle_head", "stage2.width.by4"): {16, 24, 36, 48},
    }


def test_a_head_that_no_width_fits_is_not_offered() -> None:
    narrow = space("thirds_head", "staged_pixel_shuffle_head", widths=(16, 20))
    offered = {config.head.name for config in random_walks(narrow, WAN, 50) if config.head_factor > 1}
    assert offered == {"staged_pixel_shuffle_head"}


@pytest.mark.parametrize("spec", [LatentSpec(4, 4, 1), LatentSpec(4, 4, 2)], ids=["1x4x4", "2x4x4"])
def test_a_space_with_a_new_head_is_counted(spec: LatentSpec) -> None:
    family = space("thirds_head", "staged_pixel_shuffle_head", widths=(16, 48))
    odometer = Odometer()
    configs = [family.suggest(odometer, spec)]
    while odometer.advance():
        configs.append(family.suggest(odometer, spec))
    assert family.size(spec) == len(configs) == len(set(configs))
    assert {config.head.name for config in configs} == {"thirds_head", "staged_pixel_shuffle_head", "conv3d_head"}


@pytest.mark.parametrize(
    ("spec", "divisor", "head", "width"),
    [
        (LatentSpec(48, 16, 4), 1, "thirds_head", 66),  # 64, the nearest multiple of 6 above
        (LatentSpec(48, 16, 4), 4, "thirds_head", 24),  # 16, and four multiples at least
        (LatentSpec(128, 32, 4), 1, "thirds_head", 72),  # the head makes 4: multiples of 12
        (LatentSpec(16, 8, 4), 1, "conv3d_head", 64),  # nothing is left to a head that upsamples
    ],
)
@torch.no_grad()
def test_a_design_with_a_new_head_is_adapted(spec: LatentSpec, divisor: int, head: str, width: int) -> None:
    design = adapt(replace(PRESETS["taehv_wan"], head=ThirdsHead.Config()), spec, divisor)
    assert (design.head.name, design.stages[-1].width) == (head, width)
    with torch.device("meta"):
        frames = Decoder(design)(torch.empty(1, spec.channels, 1, 2, 2))
    assert frames.shape == (1, 3, spec.num_frames(1), 2 * spec.spatial, 2 * spec.spatial)


def test_a_head_that_cannot_upsample_so_far_gives_way_to_that_of_the_paper() -> None:
    spec = LatentSpec(48, 16, 4)
    design = adapt(PRESETS["turbo_vaed_cog"], spec)
    assert design.head_factor == 2 and not get_block("conv3d_head").supports_factor(2)
    assert design.head == get_block("staged_pixel_shuffle_head").Config()


def compared_strings(source: str) -> set[str]:
    """String constants on which a module's decisions depend: in comparisons, patterns, keys and tests of a prefix."""
    deciding: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare():
                deciding += [node.left, *node.comparators]
            case ast.MatchValue():
                deciding.append(node.value)
            case ast.Dict():
                deciding += [key for key in node.keys if key is not None]
            case ast.Subscript():
                deciding.append(node.slice)
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith" | "get")):
                deciding += node.args
    constants = [part for node in deciding for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return {constant.value for constant in constants if isinstance(constant.value, str)}


def test_every_way_to_compare_is_seen() -> None:
    source = """
if head.name == "a" or head.name in ("b", *["c"]) or head.name.startswith("d"):
    units = {"e": 4}["f"] + {}.get("g")
match head.name:
    case "h" | "i":
        part = get_block("not compared")
"""
    assert compared_strings(source) == set("abcdefghi")


@pytest.mark.parametrize("layer", ["search_spaces", "nas"])
def test_nothing_is_decided_by_the_name_of_a_part(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    names = set(list_blocks())
    wrong = {
        str(file.relative_to(ROOT)): found for file in files if (found := compared_strings(file.read_text()) & names)
    }
    assert not wrong
