"""What a child takes over from its parent, and what it does not."""

from dataclasses import replace

import torch
from torch import nn

from blocks import get_block
from nas.distillation.inherit import inherit_weights
from search_spaces import Decoder, StageConfig
from tests.support.small_decoders import SPECS, make_decoder, make_latents, small_config

CONFIG = small_config(SPECS["16ch-4x8x8-leading"])


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_twin_inherits_everything() -> None:
    parent, child = make_decoder(CONFIG, 0), make_decoder(CONFIG, 1)
    assert inherit_weights(child, parent) == size(parent)
    latents = make_latents(CONFIG.latents, 3)
    with torch.no_grad():
        assert torch.equal(child(latents), parent(latents))


def test_a_child_keeps_its_own_weights_where_it_departs() -> None:
    first, second, third = CONFIG.stages
    wider = replace(second, width=20)
    parent, child = make_decoder(CONFIG, 0), make_decoder(replace(CONFIG, stages=(first, wider, third)), 1)
    before = {name: value.clone() for name, value in child.state_dict().items()}
    copied = inherit_weights(child, parent)
    assert (
        equal(child.stem, parent.stem) and equal(child.stages[0], parent.stages[0]) and equal(child.head, parent.head)
    )
    assert copied == size(child.stem) + size(child.stages[0]) + size(child.head)
    for name, value in child.state_dict().items():
        if name.startswith(("stages.1", "stages.2")):
            assert torch.equal(value, before[name]), name


def test_another_kind_or_number_of_blocks_takes_what_is_left() -> None:
    first, second, third = CONFIG.stages
    deeper = replace(first, depth=3)
    other = replace(second, block=get_block("residual_conv2d").Config())
    parent, child = make_decoder(CONFIG, 0), make_decoder(replace(CONFIG, stages=(deeper, other, third)), 1)
    inherit_weights(child, parent)
    blocks, inherited = child.stages[0].parts, parent.stages[0].parts  # type: ignore[union-attr]
    assert equal(blocks[0], inherited[0]) and not equal(blocks[1], inherited[0])  # type: ignore[index]
    assert equal(child.stages[2], parent.stages[2])


def test_a_stage_more_at_one_resolution_moves_no_other() -> None:
    """The upsampler halves the width, a stage after it sets it: all finer resolutions are where they were."""
    first, second, third = CONFIG.stages
    config = replace(CONFIG, stages=(first, replace(second, depth=0), StageConfig(12, 1, second.block), third))
    parent, child = make_decoder(CONFIG, 0), make_decoder(config, 1)
    assert inherit_weights(child, parent) == size(parent)


def test_running_statistics_are_inherited() -> None:
    block = next(
        each for each in get_block("residual_conv2d").Config.all_configs() if getattr(each, "norm", "") == "batch"
    )
    config = replace(CONFIG, stages=(replace(CONFIG.stages[0], block=block), *CONFIG.stages[1:]))
    parent, child = make_decoder(config, 0), make_decoder(config, 1)
    with torch.no_grad():
        for name, buffer in parent.named_buffers():
            if name.endswith("running_mean"):
                buffer += 3
    inherit_weights(child, parent)
    assert equal(child, parent)


def test_strangers_share_nothing() -> None:
    stages = tuple(replace(stage, width=2 * stage.width) for stage in CONFIG.stages)
    assert inherit_weights(Decoder(replace(CONFIG, stages=stages)), make_decoder(CONFIG)) == 0
