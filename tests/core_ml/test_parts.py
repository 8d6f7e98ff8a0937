"""Parts that are converted alone: what they become adds up to the decoder, and their sizes are counted."""

import resource
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks import Block, get_block, list_blocks
from blocks.registry import Role
from blocks.time_context import Layout, TemporalMode
from nas.core_ml.one_decode import OneDecode
from nas.core_ml.part_reports import _KNOWN, inspect_parts
from nas.core_ml.part_templates import conclude_steps
from nas.core_ml.part_traces import PartAlone, example_inputs, trace_part
from nas.core_ml.parts import Part, decoder_parts, finer_grid
from nas.core_ml.steps import Step, module_steps
from nas.latency.prediction.operations import list_operations
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec
from search_spaces.choices import RandomChooser
from tests.support.small_decoders import SPECS, make_config
from tests.support.small_modules import Calls

SPEC = SPECS["16ch-4x8x8-leading"]
IMAGES = LatentSpec(channels=4, spatial=8, temporal=1)

MOVES = ("transpose", "reshape", "squeeze", "expand_dims")
"""What two neighbours may leave out where one undoes what the other did."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    _KNOWN.clear()


@pytest.mark.parametrize(
    ("space", "seed", "spec"),
    [
        ("memory2d", 0, SPEC),
        ("hybrid", 1, IMAGES),
        *(pytest.param(space, seed, SPEC, marks=pytest.mark.slow) for space in SEARCH_SPACES for seed in (1, 2)),
        *(pytest.param(space, 2, IMAGES, marks=pytest.mark.slow) for space in SEARCH_SPACES),
    ],
)
def test_parts_add_up_to_the_decoder(space: str, seed: int, spec: LatentSpec) -> None:
    """Every operation of the decoder's own program, but for moves at the seams that cancel each other there."""
    config = make_config(space, spec, seed)
    placed = decoder_parts(config, 5, 32, 32)
    assert list(dict.fromkeys(stage for stage, _ in placed)) == list(Decoder(config).stage_modules())
    reports = inspect_parts(part for _, part in placed)
    assert not any(report.problem for report in reports.values())
    apart = [step for _, part in placed for step in reports[part].steps]
    whole = module_steps(OneDecode(Decoder(config)), torch.zeros(1, *config.latents.latent_shape(5, 32, 32)))
    assert sum(step.macs for step in apart) == sum(step.macs for step in whole) > 0

    def counts(steps: Iterable[Step]) -> tuple[Counter[str], int]:
        op_types = Counter(step.op_type for step in steps)
        moves = sum(op_types.pop(op_type, 0) for op_type in MOVES)
        return op_types, moves

    (op_types, moves), (whole_types, whole_moves) = counts(apart), counts(whole)
    assert op_types == whole_types
    # Cutting a clip into images and joining them again is no part's.
    assert whole_moves - 6 * (spec is IMAGES) <= moves <= 1.25 * whole_moves + 2


def test_what_is_known_is_not_converted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part for _, part in decoder_parts(make_config("memory2d", SPEC, 0), 5, 32, 32)]
    found = inspect_parts(parts)
    _KNOWN.clear()  # as in another process
    monkeypatch.setattr("nas.core_ml.part_reports.to_mil", lambda *_, **__: pytest.fail("converted again"))
    assert inspect_parts(parts) == found
    assert 0 < len(list((tmp_path / "parts").rglob("*.json"))) <= len(set(parts))


def test_converting_a_part_takes_no_memory_for_what_goes_in() -> None:
    """4 GB here: filling them took most of the time of a search that begins with nothing known."""
    block, geometry = get_block("memory_conv2d"), (("out_channels", 64),)
    layouts = block.input_layout, block.output_layout
    part = Part(block.Config(), 64, geometry, (17, 720, 1280), *layouts, "causal", drop_leading=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(each.nbytes for each in example_inputs(part)) > 4e9
    assert inspect_parts([part])[part].steps
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # in KiB


def test_upsamplers_and_heads_move_whole_rows() -> None:
    """On a Neural Engine a row takes 64 bytes at least: moving single pixels would take 32 times their memory."""
    mode: TemporalMode = "causal"
    factors = {"upsampler": {"temporal_factor": 2, "spatial_factor": 2}, "head": {"spatial_factor": 2}}
    parts = []
    for role, geometry in factors.items():
        for name in list_blocks(cast(Role, role)):
            block = get_block(name)
            sizes = tuple(({"out_channels": 16, **geometry} if role == "upsampler" else geometry).items())
            layouts = block.input_layout, block.output_layout
            parts.append(Part(block.Config(), 16, sizes, (3, 8, 40), *layouts, mode, drop_leading=True))
    parts = [part for part in parts if part.config.name != "conv3d_head"]  # does not upsample
    for part, report in inspect_parts(parts).items():
        assert not report.problem
        assert min(shape[-1] for step in report.steps for shape in step.results) >= 40, part.config.name


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv3d(4, 6, (3, 5, 1), padding=(1, 2, 0)), (1, 4, 7, 8, 9)),
        (nn.Conv2d(8, 8, 3, groups=8), (2, 8, 9, 9)),
        (nn.Conv2d(8, 4, 3, groups=2, stride=2), (2, 8, 9, 9)),
        (nn.ConvTranspose2d(8, 6, 4, stride=2), (2, 8, 5, 5)),
        (nn.Linear(6, 10), (2, 5, 6)),
        (Calls(lambda x: x @ x.transpose(1, 2)), (2, 5, 6)),
        (Calls(lambda x: torch.einsum("bic,bjc->bij", x, x + 1)), (2, 5, 6)),
        (Calls(lambda x: functional.scaled_dot_product_attention(x, x + 1, x + 2)), (2, 3, 10, 16)),
    ],
    ids=["conv3d", "depthwise", "strided", "transposed", "linear", "matmul", "einsum", "attention"],
)
def test_multiply_accumulates_are_those_of_pytorch(module: nn.Module, shape: tuple[int, ...]) -> None:
    expected = sum(operation.macs for operation in list_operations(module, shape))
    assert sum(step.macs for step in module_steps(module, torch.ones(shape))) == expected > 0


def test_operators_that_coremltools_does_not_know_are_replaced() -> None:
    def odd(x: Tensor) -> Tensor:
        x = torch.concatenate([x, x[:, :0], x.permute(0, 1, 2, 3)], dim=1)
        return functional.interpolate(x, scale_factor=2.0, mode="nearest-exact")

    op_types = [step.op_type for step in module_steps(Calls(odd), torch.ones(1, 2, 4, 4))]
    assert sorted(op_types) == ["concat", "upsample_nearest_neighbor"]
    with pytest.raises(NotImplementedError, match="nearest_exact"):
        module_steps(
            Calls(lambda x: functional.interpolate(x, size=(6, 6), mode="nearest-exact")), torch.ones(1, 2, 4, 4)
        )


@pytest.mark.parametrize("space", SEARCH_SPACES)
@pytest.mark.parametrize("spec", [*SPECS.values(), IMAGES], ids=[*SPECS, "images"])
def test_parts_are_given_what_the_decoder_gives_them(space: str, spec: LatentSpec) -> None:
    """Nothing is built to say where a part stands; a run of the whole decoder says the same."""
    frames = spec.largest_clip(17)
    for seed in range(2):
        config = make_config(space, spec, seed)
        seen = shapes_of_blocks(config, torch.empty(1, *spec.latent_shape(frames, 64, 96), device="meta"))
        expected = []
        for _, part in decoder_parts(config, frames, 64, 96):
            block = get_block(part.config.name)
            after = finer_grid(part.grid, dict(part.geometry), part.drop_leading)
            channels = dict(part.geometry).get("out_channels", 3)
            given = in_layout(part, block.input_layout, part.in_channels, part.grid)
            expected.append((given, in_layout(part, block.output_layout, channels, after)))
            trace_part(part)  # which checks what the part makes
        assert seen == expected


def shapes_of_blocks(config: DecoderConfig, latents: Tensor) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What goes into each block of a decoder and what comes out, in the order of execution."""
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    with torch.device("meta"):
        decoder = Decoder(config)
    for module in decoder.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _, given, out: seen.append((given[0].shape, out.shape)))
    decoder(latents)
    return seen


def in_layout(part: Part, layout: Layout, channels: int, grid: tuple[int, int, int]) -> tuple[int, ...]:
    frames, height, width = grid
    if layout == "frames":
        return frames, channels, height, width
    return (frames, channels, 1, height, width) if part.images else (1, channels, frames, height, width)


def family(name: str, widths: Sequence[tuple[int, int]], frames: Sequence[int]) -> list[Part]:
    """A part at several widths and lengths."""
    block = get_block(name)
    factors = {"temporal_factor": 2, "spatial_factor": 2} if block.role == "upsampler" else {}
    layouts = block.input_layout, block.output_layout
    return [
        Part(
            block.Config(),
            before,
            tuple({"out_channels": after, **factors}.items()),
            (length, 8, 12 + 4 * index),
            *layouts,
            "causal",
            drop_leading=True,
        )
        for index, ((before, after), length) in enumerate(zip(widths, frames, strict=True))
    ]


CHANGES = [(8, 12), (12, 20), (20, 36), (24, 28)]
FAMILIES = {
    "same width": ("dense_conv3d", [(8, 8), (12, 12), (20, 20), (36, 36)]),
    "other width": ("dense_conv3d", CHANGES),
    "depthwise": ("memory_convnext2d", CHANGES),
    "channels to pixels": ("pixel_shuffle2d", [(8, 4), (12, 6), (20, 10), (32, 16)]),
}


@pytest.mark.parametrize("title", FAMILIES)
def test_what_follows_from_other_widths_is_what_converting_gives(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *known, last = family(*FAMILIES[title], frames=(3, 5, 7, 9))
    assert len({trace_part(part).structure for part in (*known, last)}) == 1
    for part in known:  # one after the other, each with what was found about those before
        inspect_parts([part])
    _KNOWN.clear()
    with monkeypatch.context() as patch:
        patch.setattr("nas.core_ml.part_reports.to_mil", lambda *_, **__: pytest.fail("converted"))
        (concluded,) = inspect_parts([last]).values()
    whole = tuple(module_steps(PartAlone(last), *example_inputs(last)))
    assert concluded.steps == whole and not concluded.problem


def test_nothing_is_concluded_where_a_doubt_is_left() -> None:
    (step,) = module_steps(nn.Conv2d(4, 6, 3, padding=1), torch.ones(2, 4, 8, 8))
    sizes = (2, 4, 8, 8, 6, 4, 3, 3, 6, 2, 6, 8, 8)
    wider = tuple(replace_size(sizes, {6: 10}))
    assert conclude_steps(sizes, []) is None
    assert conclude_steps(sizes, [(sizes, (step,))]) == (step,)
    assert conclude_steps(wider, [(sizes, (step,))]) is None  # 6 may be a constant of the program


def replace_size(sizes: Iterable[int], changed: dict[int, int]) -> Iterable[int]:
    return (changed.get(size, size) for size in sizes)


@pytest.mark.slow
@pytest.mark.parametrize("space", SEARCH_SPACES)
def test_what_is_concluded_of_random_decoders_is_what_converting_gives(space: str) -> None:
    by_structure: dict[str, list[Part]] = defaultdict(list)
    chooser = RandomChooser(0)
    for _ in range(40):
        config = SEARCH_SPACES[space].suggest(chooser, SPEC)
        for _, part in decoder_parts(config, 17, 128, 128):
            parts = by_structure[trace_part(part).structure]
            parts += [part] * (part not in parts)
    concluded = 0
    for alike in sorted(by_structure.values(), key=len, reverse=True)[:12]:
        *known, last = alike[:5]
        steps = conclude_steps(
            trace_part(last).sizes,
            [(trace_part(part).sizes, module_steps(PartAlone(part), *example_inputs(part))) for part in known],
        )
        if steps is not None:
            concluded += 1
            assert steps == module_steps(PartAlone(last), *example_inputs(last)), last
    assert concluded >= 6
