"""LatentSpec, StageConfig and DecoderConfig: arithmetic of frames, JSON, equality, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from blocks import BlockConfig, get_block
from search_spaces import PRESETS, DecoderConfig, LatentSpec, StageConfig
from search_spaces.latent_spec import FrameRule

WAN = LatentSpec(channels=16, spatial=8, temporal=4)
DC_AE = LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False)
LTX = LatentSpec(channels=128, spatial=32, temporal=8, causal=False)
MOCHI = LatentSpec(channels=12, spatial=8, temporal=6)
COG = LatentSpec(channels=16, spatial=8, temporal=4, frame_rule="leading_if_odd")
IMAGES = LatentSpec(channels=4, spatial=8, temporal=1)
SPECS = {"wan": WAN, "dc_ae": DC_AE, "ltx": LTX, "mochi": MOCHI, "cog": COG, "images": IMAGES}


def part(name: str, **options: Any) -> BlockConfig:
    return get_block(name).Config(**options)


def stage(**changes: Any) -> StageConfig:
    """One that doubles time and space."""
    settings: dict[str, Any] = {
        "width": 24,
        "depth": 2,
        "block": part("memory_conv2d", depth=2),
        "upsampler": part("nearest_conv3d"),
        "temporal_factor": 2,
        "spatial_factor": 2,
    }
    return StageConfig(**(settings | changes))


def decoder(**changes: Any) -> DecoderConfig:
    """A config with every optional part in use."""
    dense = part("dense_conv3d", activation="relu")
    settings: dict[str, Any] = {
        "latents": replace(WAN, mean=tuple(0.1 * index for index in range(16)), std=(0.5,) * 16),
        "stem": part("conv2d_stem"),
        "stages": (
            StageConfig(width=32, depth=1, block=part("depthwise_separable_conv3d", kernel_size=3)),
            stage(block=dense, transition=part("dense_conv3d")),
            stage(width=16, depth=0),
        ),
        "head": part("pixel_shuffle_head"),
    }
    return DecoderConfig(**(settings | changes))


@pytest.mark.parametrize(
    ("spec", "frames"),
    [
        (WAN, (1, 5, 9, 13, 17)),
        (DC_AE, (4, 8, 12, 16, 20)),
        (LTX, (1, 9, 17, 25, 33)),
        (MOCHI, (1, 7, 13, 19, 25)),
        (COG, (1, 8, 9, 16, 17)),
        (IMAGES, (1, 2, 3, 4, 5)),
    ],
)
def test_frames_of_1_to_5_latents(spec: LatentSpec, frames: tuple[int, ...]) -> None:
    assert tuple(spec.num_frames(count) for count in range(1, 6)) == frames
    assert tuple(spec.num_latents(count) for count in frames) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_frames_fit_or_the_nearest_counts_are_named(spec: LatentSpec) -> None:
    valid = [spec.num_frames(count) for count in range(1, 100)]
    for frames in range(1, 100):
        if frames in valid:
            assert spec.num_frames(spec.num_latents(frames)) == frames
            continue
        with pytest.raises(ValueError) as caught:
            spec.num_latents(frames)
        named = [int(word) for word in str(caught.value).split("counts are ")[1].split(" and ")]
        distances = sorted(abs(count - frames) for count in valid)
        assert set(named) <= set(valid) and named == sorted(named)
        assert sorted(abs(count - frames) for count in named) == distances[:2]


def test_the_message_for_a_wrong_number_of_frames() -> None:
    with pytest.raises(ValueError) as caught:
        WAN.num_latents(16)
    assert str(caught.value) == (
        "16 frames do not fit latents with 4x compression in time (frame rule 'leading'): "
        "the nearest valid counts are 13 and 17"
    )
    for frames in (0, -3):
        with pytest.raises(ValueError, match=r"the nearest valid counts are 1\b"):
            WAN.num_latents(frames)


@pytest.mark.parametrize("frames", [-8, -100])
def test_a_negative_number_of_frames_names_valid_counts_too(frames: int) -> None:
    with pytest.raises(ValueError, match=r"the nearest valid counts are 1\b"):
        WAN.num_latents(frames)


@pytest.mark.parametrize("count", [0, -1])
def test_no_latents_have_no_frames(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 latent frame is needed, got {count}"):
        WAN.num_frames(count)


def test_shape_of_the_latents_of_a_video() -> None:
    assert WAN.latent_shape(17, 480, 832) == (16, 5, 60, 104)
    assert LTX.latent_shape(17, 512, 704) == (128, 3, 16, 22)
    assert DC_AE.latent_shape(16, 32, 64) == (128, 4, 1, 2)
    with pytest.raises(ValueError, match="16 frames do not fit"):
        WAN.latent_shape(16, 64, 64)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((100, 64), "height must be a multiple of 8, got 100: the nearest are 96 and 104"),
        ((64, 3), "width must be a multiple of 8, got 3: the nearest are 8 and 16"),
        ((0, 64), "height must be a multiple of 8, got 0: the nearest are 8 and 16"),
        ((-8, 64), "height must be a multiple of 8, got -8: the nearest are 8 and 16"),
    ],
)
def test_a_size_off_the_grid_is_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        WAN.latent_shape(17, *size)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"temporal": -4}, "temporal must be at least 1, got -4"),
        ({"spatial": 12}, "spatial compression must be a power of two, got 12"),
        ({"temporal": 10}, "temporal compression must be a product of twos and threes, got 10"),
        ({"frame_rule": "trailing"}, "frame_rule must be one of leading, multiple, leading_if_odd, got 'trailing'"),
        ({"mean": (0.0,) * 15}, "latents mean needs 16 values, one per channel, got 15"),
        ({"std": (1.0,)}, "latents std needs 16 values, one per channel, got 1"),
        ({"std": (1.0,) * 15 + (0.0,)}, "latents std must be positive, got 0.0"),
    ],
)
def test_impossible_latents_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        replace(WAN, **changes)
    assert str(caught.value) == message


def test_steps_in_time_and_space() -> None:
    steps = {factor: replace(WAN, temporal=factor).temporal_steps for factor in (1, 2, 4, 6, 8, 12, 9)}
    assert steps == {1: (), 2: (2,), 4: (2, 2), 6: (3, 2), 8: (2, 2, 2), 12: (3, 2, 2), 9: (3, 3)}
    assert [replace(WAN, spatial=factor).spatial_doublings for factor in (1, 2, 8, 32)] == [0, 1, 3, 5]


@pytest.mark.parametrize("rule", ["leading", "multiple", "leading_if_odd"])
def test_latents_go_through_json(rule: FrameRule) -> None:
    spec = LatentSpec(2, 8, 4, rule, mean=(0.1, -2.5), std=(1.5, 1e-3), causal=False)
    back = LatentSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec and hash(back) == hash(spec)


@pytest.mark.parametrize("config", [decoder(), *PRESETS.values()], ids=["every part", *PRESETS])
def test_a_decoder_goes_through_json(config: DecoderConfig) -> None:
    text = json.dumps(config.to_dict())
    back = DecoderConfig.from_dict(json.loads(text))
    assert back == config and hash(back) == hash(config) and back.digest() == config.digest()
    assert json.dumps(back.to_dict()) == text


CHANGES: dict[str, Callable[[DecoderConfig], DecoderConfig]] = {
    "stem": lambda config: replace(config, stem=part("conv3d_stem")),
    "head": lambda config: replace(config, head=part("staged_pixel_shuffle_head")),
    "mode": lambda config: replace(config, temporal_mode="bidirectional"),
    "channels": lambda config: replace(config, latents=replace(WAN, channels=8)),
    "rule": lambda config: replace(config, latents=replace(config.latents, frame_rule="leading_if_odd")),
    "width": lambda config: change_stage(config, 0, width=33),
    "depth": lambda config: change_stage(config, 1, depth=3),
    "block": lambda config: change_stage(config, 0, block=part("memory_conv2d")),
    "option": lambda config: change_stage(config, 0, block=part("depthwise_separable_conv3d", kernel_size=5)),
    "upsampler": lambda config: change_stage(config, 2, upsampler=part("trilinear_conv3d")),
    "transition": lambda config: change_stage(config, 1, transition=None),
    "trim": lambda config: replace(config, trim="end", shortcut=None),
    "published option": lambda config: replace(config, stem=part("conv2d_stem", limited=True)),
    "order": lambda config: replace(config, stages=(config.stages[0], config.stages[2], config.stages[1])),
}


def change_stage(config: DecoderConfig, index: int, **changes: Any) -> DecoderConfig:
    stages = list(config.stages)
    stages[index] = replace(stages[index], **changes)
    return replace(config, stages=tuple(stages))


def test_equal_configs_are_one_architecture() -> None:
    assert decoder() == decoder() and hash(decoder()) == hash(decoder()) and decoder().digest() == decoder().digest()
    assert len(decoder().digest()) == 12 and int(decoder().digest(), 16) >= 0
    changed = [change(decoder()) for change in CHANGES.values()]
    assert len({decoder(), *changed}) == len({config.digest() for config in [decoder(), *changed]}) == len(CHANGES) + 1


def test_the_digest_ignores_statistics_alone() -> None:
    plain = replace(decoder(), latents=WAN)
    assert plain != decoder() and plain.digest() == decoder().digest()
    assert replace(decoder(), latents=replace(WAN, causal=False)).digest() != decoder().digest()


def test_configs_do_not_change() -> None:
    for config, field in (
        (decoder(), "head"),
        (decoder().stages[0], "width"),
        (WAN, "channels"),
        (part("conv3d_stem"), "kernel_size"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(config, field, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "a stage needs width >= 1 and depth >= 0, got width 0, depth 2"),
        ({"depth": -1}, "a stage needs width >= 1 and depth >= 0, got width 24, depth -1"),
        ({"upsampler": None}, "an upsampler and a factor above 1 go together, got upsampler None, factors 2 and 2"),
        (
            {"temporal_factor": 1, "spatial_factor": 1},
            "an upsampler and a factor above 1 go together, got upsampler nearest_conv3d, factors 1 and 1",
        ),
        ({"block": part("nearest_conv3d")}, "'nearest_conv3d' is a upsampler, not a block"),
        ({"upsampler": part("dense_conv3d")}, "'dense_conv3d' is a block, not a upsampler"),
        ({"transition": part("conv3d_stem")}, "'conv3d_stem' is a stem, not a block"),
    ],
)
def test_an_impossible_stage_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        stage(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize("factor", [0, -1, -2])
def test_factors_below_1_are_refused(factor: int) -> None:
    for name in ("temporal_factor", "spatial_factor"):
        with pytest.raises(ValueError, match="factor"):
            stage(**{name: factor})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ()}, "a decoder needs at least one stage"),
        ({"temporal_mode": "forward"}, "temporal_mode must be causal or bidirectional, got 'forward'"),
        ({"stem": part("conv3d_head")}, "'conv3d_head' is a head, not a stem"),
        ({"head": part("conv3d_stem")}, "'conv3d_stem' is a stem, not a head"),
        ({"stages": (stage(),)}, "the stages upsample 2x in time, the latents need 4x"),
        ({"stages": (stage(), stage(), stage())}, "the stages upsample 8x in time, the latents need 4x"),
        (
            {"stages": (stage(spatial_factor=8), stage(spatial_factor=4))},
            "the stages upsample 32x in space, the latents need 8x",
        ),
    ],
)
def test_an_impossible_decoder_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        decoder(**changes)
    assert str(caught.value) == message


def test_json_with_an_unknown_part_names_the_nearest() -> None:
    data = decoder().to_dict()
    data["stages"][1]["block"]["name"] = "dense_conv3e"
    with pytest.raises(
        ValueError, match=r"unknown part 'dense_conv3e': did you mean 'dense_conv3d'\? known: conv2d_stem"
    ):
        DecoderConfig.from_dict(data)
    data = decoder().to_dict()
    data["head"]["gain"] = 2
    with pytest.raises(ValueError, match="pixel_shuffle_head has no option 'gain': known: kernel_size"):
        DecoderConfig.from_dict(data)
    data = decoder().to_dict()
    data["stem"]["kernel_size"] = 7
    with pytest.raises(ValueError, match="conv2d_stem: kernel_size must be one of 3, got 7"):
        DecoderConfig.from_dict(data)
    for option in ("expansion", "shortcut"):  # have other names now
        data = PRESETS["turbo_vaed_cog"].to_dict()
        data["stages"][1]["upsampler"][option] = "dense"
        with pytest.raises(ValueError, match=rf"decoupled\w+ has no option '{option}': known: projection, skip$"):
            DecoderConfig.from_dict(data)


def test_the_head_makes_what_the_stages_leave() -> None:
    assert decoder().head_factor == 2
    assert PRESETS["turbo_vaed_hunyuan"].head_factor == 1 and PRESETS["turbo_vaed_ltx"].head_factor == 4


def test_summaries() -> None:
    assert decoder().summary() == "dw3d 32x1 > nearestt > conv3d 24x3 > nearestt 16 > ps2"
    assert PRESETS["turbo_vaed_cog"].summary() == (
        "dw3d 512x9 > dpst > conv3d 256x5 > dpst > conv3d 32x5 > dps > conv3d 16x6 > conv"
    )
