"""Weights that a decoder takes over from another one: those of the parts that both have at the same place."""

from collections.abc import Iterator

import torch
from torch import nn

from blocks import Block, BlockConfig
from search_spaces import Decoder
from search_spaces.stage_groups import group_stages

Place = tuple[int, str, int, BlockConfig]
"""Resolution (-1 for what is outside of the stages), kind of part, number among those of its kind there, config."""


@torch.no_grad()
def inherit_weights(child: Decoder, parent: Decoder) -> int:
    """Copy the weights of every part of `parent` that `child` has, too, at the same resolution with the same widths.

    As children of an evolution do in Lamarckian search (arXiv 1804.09081). All other weights stay as they are.

    Args:
        child: is changed; may be on another device and of another dtype than its parent.
        parent: is not changed.

    Returns:
        Number of parameters that were copied, 0 where the decoders share nothing.
    """
    inherited = dict(_placed(parent))
    copied = 0
    for place, part in _placed(child):
        if place not in inherited:
            continue
        ours, theirs = part.state_dict(), inherited[place].state_dict()
        if {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}:
            part.load_state_dict(theirs)
            copied += sum(parameter.numel() for parameter in part.parameters())
    return copied


def _placed(decoder: Decoder) -> Iterator[tuple[Place, nn.Module]]:
    """Every part with its place. Stages count by resolution: one more that changes the width alone moves no other."""
    config = decoder.config
    yield (-1, "stem", 0, config.stem), decoder.stem
    index = 0
    for resolution, group in enumerate(group_stages(config.stages)):
        seen: dict[str, int] = {}
        for stage in group:
            kinds = {"transition": stage.transition, "upsampler": stage.upsampler}
            configs = [(kind, part) for kind, part in kinds.items() if part is not None]
            configs += [("block", stage.block)] * stage.depth
            modules = [module for module in decoder.stages[index].modules() if isinstance(module, Block)]
            for (kind, part), module in zip(configs, modules, strict=True):
                yield (resolution, kind, seen.setdefault(kind, 0), part), module
                seen[kind] += 1
            index += 1
    yield (-1, "head", 0, config.head), decoder.head
    if config.shortcut is not None:
        assert decoder.shortcut is not None
        yield (-1, "shortcut", 0, config.shortcut), decoder.shortcut
