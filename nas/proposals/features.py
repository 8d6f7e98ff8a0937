"""An architecture as numbers, for models of quality and latency: sizes by resolution, work by resolution, choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2

import numpy as np
import numpy.typing as npt

from blocks.registry import Option
from search_spaces import DecoderConfig
from search_spaces.stage_groups import group_stages

Floats = npt.NDArray[np.float64]

_RESOLUTIONS = 6
"""Doublings of the latents' height and width that are told apart; finer ones count as the last."""


@dataclass(frozen=True)
class Described:
    """One architecture in numbers."""

    sizes: Floats
    """Log widths and depths by resolution, log work by resolution and in all, `(4 resolutions + 2,)`."""
    choices: frozenset[str]
    """The choices that it embodies, each "name=value"."""


def describe(config: DecoderConfig, params: Mapping[str, Option]) -> Described:
    """Numbers of an architecture. Nothing is built or run: work is width times width before it, times positions.

    Args:
        config: the architecture.
        params: its choices, by name.
    """
    widths, depths, work, parameters = (np.zeros(_RESOLUTIONS) for _ in range(4))
    positions, before = 1.0, config.latents.channels
    for index, group in enumerate(group_stages(config.stages)):
        at = min(index, _RESOLUTIONS - 1)
        for stage in group:
            positions *= stage.spatial_factor**2 * stage.temporal_factor
            units = before * stage.width + (max(stage.depth, 1) + (stage.transition is not None)) * stage.width**2
            work[at] += units * positions
            parameters[at] += units
            depths[at] += stage.depth
            before = stage.width
        widths[at] = log2(group[-1].width)
    totals = [log2(work.sum()), log2(parameters.sum())]
    sizes = np.concatenate([widths, np.log2(1 + depths), np.log2(1 + work), np.log2(1 + parameters), totals])
    return Described(sizes, frozenset(f"{name}={value}" for name, value in params.items()))
