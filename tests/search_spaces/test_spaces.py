"""Search spaces: every walk gives a decoder that builds, and the walks are counted and inverted rightly."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import optuna
import pytest
import torch

from blocks import TimeContext, build_block, get_block, list_blocks
from blocks.time_context import to_frames
from nas.core_ml.convert import export_program
from nas.teachers import list_releases
from nas.testing.space_contract import LATENTS, SPACE_CHECKS, Dice, random_walks
from search_spaces import PRESETS, SEARCH_SPACES, Decoder, LatentSpec, SearchSpace, adapt
from search_spaces.choices import count_parts
from search_spaces.space import Level
from search_spaces.stage_groups import group_stages

HOMES = {
    "hybrid": list(PRESETS),
    "turbo3d": [name for name in PRESETS if name.startswith("turbo_vaed")],
    "memory2d": ["taehv_wan"],
}
"""Which published designs are points of which space."""
EVERYWHERE = pytest.mark.parametrize("space", SEARCH_SPACES.values(), ids=SEARCH_SPACES)
FOR_ALL_LATENTS = pytest.mark.parametrize("spec", LATENTS.values(), ids=LATENTS)


class Odometer:
    """Takes every way through a space, one per walk: the last decision that has something left moves on."""

    def __init__(self) -> None:
        self.path: list[tuple[int, int]] = []
        self.position = 0

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        if self.position == len(self.path):
            self.path.append((0, len(choices)))
        index, count = self.path[self.position]
        assert count == len(choices)
        self.position += 1
        return choices[index]

    def advance(self) -> bool:
        """To the next way; False after the last."""
        self.position = 0
        while self.path:
            index, count = self.path.pop()
            if index + 1 < count:
                self.path.append((index + 1, count))
                return True
        return False


def test_the_spaces_are_found_by_name() -> None:
    assert {"hybrid", "turbo3d"} <= SEARCH_SPACES.keys()
    for name, space in SEARCH_SPACES.items():
        assert space.name == name and space.description and "\n" not in space.description


def test_every_part_is_searched_somewhere() -> None:
    spaces = SEARCH_SPACES.values()
    named = {name for space in spaces for name in (*space.stems, *space.upsamplers, *space.heads, *space.plain_heads)}
    named |= {name for space in spaces for name in (*space.middles, *space.shortcuts)}
    named |= {name for space in spaces for level in space.levels for name in level.blocks}
    from_elsewhere = {name for name in list_blocks() if not get_block(name).__module__.startswith("blocks.")}
    assert named - from_elsewhere == set(list_blocks()) - from_elsewhere


@EVERYWHERE
@FOR_ALL_LATENTS
@pytest.mark.parametrize("check", SPACE_CHECKS)
def test_contract(check: str, space: SearchSpace, spec: LatentSpec) -> None:
    SPACE_CHECKS[check](space, spec)


@EVERYWHERE
def test_walks_differ(space: SearchSpace) -> None:
    configs = list(random_walks(space, LATENTS["48ch-4x16x16-leading"], 100))
    assert len(set(configs)) == 100
    assert {len(group_stages(config.stages)) for config in configs} == {3, 4, 5}
    for part, offered in (("stem", space.stems), ("head", (*space.heads, *space.plain_heads))):
        assert {getattr(config, part).name for config in configs} == set(offered)
    doublings = [group for config in configs for group in group_stages(config.stages)[1:]]
    assert {group[0].transition is None for group in doublings} == {True, False}
    assert {group[-1].upsampler is None for group in doublings} == {True, False}, "blocks may follow apart"
    refined = [(stage.temporal_factor > 1, stage.spatial_factor > 1) for group in doublings for stage in group]
    assert set(refined) == {(True, True), (True, False), (False, True), (False, False)}
    with_middle = any(stage.block.name in space.middles for config in configs for stage in config.stages)
    assert with_middle == bool(space.middles)


@pytest.mark.parametrize(
    "spec",
    [LatentSpec(4, 2, 2), LatentSpec(4, 4, 1), LatentSpec(4, 4, 2), LatentSpec(4, 4, 4)],
    ids=lambda spec: f"{spec.temporal}x{spec.spatial}x{spec.spatial}",
)
def test_size_is_the_number_of_walks(spec: LatentSpec) -> None:
    space = SearchSpace(
        name="tiny",
        description="small enough to count",
        stems=("conv2d_stem",),
        levels=(
            Level(("memory_conv2d",), widths=(32,), depths=(1, 2)),
            Level(("dense_conv3d",), widths=(16, 20), depths=(0,)),
            Level(("dense_conv3d",), widths=(16, 20), depths=(1,)),
        ),
        upsamplers=("nearest_conv2d",),
        heads=("haar_head", "staged_pixel_shuffle_head"),
        plain_heads=("conv3d_head",),
        middles=("frame_attention2d",),
    )
    odometer = Odometer()
    configs = [space.suggest(odometer, spec)]
    while odometer.advance():
        configs.append(space.suggest(odometer, spec))
    assert space.size(spec) == len(configs) == len(set(configs)) >= 48


def test_a_further_block_adds_its_share_to_the_size() -> None:
    """The default space with one block fewer is smaller, at the stages that offer the block and in no other way."""
    hybrid, spec = SEARCH_SPACES["hybrid"], LatentSpec(4, 2, 2)
    first, second, *others = hybrid.levels
    fewer = replace(hybrid, levels=(first, replace(second, blocks=second.blocks[1:]), *others))
    share = count_parts(second.blocks[1:]) / count_parts(second.blocks)
    assert fewer.size(spec) == pytest.approx(share * hybrid.size(spec), rel=1e-12)
    assert hybrid.size(LATENTS["16ch-4x8x8-leading"]) > 1e21


@pytest.mark.parametrize("spec", [LatentSpec(4, 2, 4), LatentSpec(4, 8, 16)], ids=["4x2x2", "16x8x8"])
@EVERYWHERE
def test_latents_without_room_are_refused(space: SearchSpace, spec: LatentSpec) -> None:
    message = f"{spec.temporal}x in time needs more stages than {spec.spatial}x in space gives"
    for use in (space.size, lambda latents: space.suggest(Dice(0), latents)):
        with pytest.raises(ValueError, match=message):
            use(spec)


def test_a_decoder_of_another_space_is_refused() -> None:
    hybrid, turbo3d, spec = SEARCH_SPACES["hybrid"], SEARCH_SPACES["turbo3d"], LATENTS["16ch-4x8x8-leading"]
    refused = 0
    low = {"depthwise_separable_conv3d", "inverted_bottleneck3d"} - set(hybrid.levels[2].blocks)
    for config in random_walks(turbo3d, spec, 40):
        if any(group[-1].block.name in low for group in group_stages(config.stages)[2:]):
            refused += 1
            message = r"^stage[23].block = '(depthwise|inverted)\w*' is not in the space 'hybrid': it offers \['\w+', '"
            with pytest.raises(ValueError, match=message):
                hybrid.params(config)
        else:
            given, own = hybrid.params(config), turbo3d.params(config)
            assert {name: given[name] for name in own} == own and "has_middle" in given.keys() - own.keys()
    assert 0 < refused < 40
    wide = adapt(PRESETS["turbo_vaed_cog"], spec, 16)
    with pytest.raises(ValueError) as caught:
        hybrid.params(wide)
    assert str(caught.value) == (
        "stage0.width = 32 is not in the space 'hybrid': it offers [64, 96, 128, 192, 256, 384, 512]"
    )


@pytest.mark.parametrize(
    "sampler", [optuna.samplers.RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0, n_startup_trials=5)]
)
@EVERYWHERE
def test_a_trial_decides(space: SearchSpace, sampler: optuna.samplers.BaseSampler) -> None:
    spec = LATENTS["128ch-8x32x32-leading"]
    study = optuna.create_study(sampler=sampler)
    choices: dict[str, set[Any]] = {}
    for _ in range(30):
        trial = study.ask()
        config = space.suggest(trial, spec)
        assert trial.params == space.params(config)
        for name, distribution in trial.distributions.items():
            assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
            choices.setdefault(name, set()).add(distribution.choices)
        study.tell(trial, float(sum(stage.width for stage in config.stages)))
    assert all(len(offered) == 1 for offered in choices.values()), "a name has one set of choices"


@EVERYWHERE
def test_a_queued_decoder_comes_next(space: SearchSpace) -> None:
    spec = LATENTS["48ch-4x16x16-leading"]
    study = optuna.create_study()
    wanted = space.suggest(Dice(1), spec)
    study.enqueue_trial(space.params(wanted))
    assert space.suggest(study.ask(), spec) == wanted


@pytest.mark.parametrize(("space", "preset"), [(space, name) for space, names in HOMES.items() for name in names])
@FOR_ALL_LATENTS
@pytest.mark.parametrize("divisor", [1, 2, 4])
def test_published_designs_are_points_of_their_spaces(space: str, preset: str, spec: LatentSpec, divisor: int) -> None:
    config = adapt(PRESETS[preset], spec, divisor)
    params = SEARCH_SPACES[space].params(config)
    assert params["stage0.width"] == PRESETS[preset].stages[0].width // divisor
    stages = len(group_stages(config.stages)) - 1
    assert params.get("upsampling_stages", stages) == stages, "not asked where there is one answer"


def test_every_published_design_has_a_space() -> None:
    assert set(HOMES["hybrid"]) == PRESETS.keys() and HOMES.keys() <= SEARCH_SPACES.keys()


@FOR_ALL_LATENTS
@torch.no_grad()
def test_every_head_answers_a_small_change(spec: LatentSpec) -> None:
    """A norm over a single channel keeps nothing but the sign: what is before it gets no gradient to learn from."""
    configs = chain(
        *(random_walks(space, spec, 100) for space in SEARCH_SPACES.values()),
        (adapt(preset, spec, divisor) for preset in PRESETS.values() for divisor in (1, 2, 4)),
    )
    deaf = []
    for head, width, factor in {(config.head, config.stages[-1].width, config.head_factor) for config in configs}:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            part = build_block(head, width, spatial_factor=factor)
            x = torch.randn(1, width, 2, 16 // factor, 16 // factor)
            changed = x + 1e-2 * torch.randn_like(x)
        layout = to_frames if part.input_layout == "frames" else lambda video: video
        before, after = (part(layout(each), TimeContext(1, "causal", drop_leading=True)) for each in (x, changed))
        if (after - before).abs().median() < 1e-4:
            deaf.append(f"{head.name}, {width} channels, x{factor}")
    assert not deaf


def test_these_are_the_latents_of_all_teachers() -> None:
    """All that geometry depends on; the statistics do not matter here, nor do the channels. Others are tried here."""
    tested = {(spec.spatial, spec.temporal, spec.frame_rule) for spec in LATENTS.values()}
    for release in list_releases():
        spec = release.latents
        if (spec.spatial, spec.temporal, spec.frame_rule) not in tested:
            SPACE_CHECKS["geometry"](SEARCH_SPACES["hybrid"], spec)
    assert len(tested) >= 9


@pytest.mark.slow
def test_frames_stay_4d_in_the_space_for_neural_engines() -> None:
    """From the first convolution to the last, nothing in the exported program has a fifth axis."""
    spec = LATENTS["16ch-4x8x8-leading"]
    for config in random_walks(SEARCH_SPACES["memory2d"], spec, 2):
        small = replace(config, shortcut=None)
        program = export_program(Decoder(small), (torch.zeros(1, spec.channels, 2, 2, 2),))
        nodes = [
            (str(node.target), getattr(node.meta.get("val"), "ndim", 0))
            for node in program.graph.nodes
            if node.op == "call_function"
        ]
        convolutions = [index for index, (target, _) in enumerate(nodes) if "conv" in target]
        inside = nodes[convolutions[0] : convolutions[-1] + 1]
        assert len(convolutions) > 5 and {rank for _, rank in inside} <= {0, 1, 2, 3, 4}, config.summary()
