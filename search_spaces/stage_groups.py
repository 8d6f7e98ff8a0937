"""Stages by resolution: a group is what stands between two doublings of height and width."""

from collections.abc import Sequence

from search_spaces.config import StageConfig

Group = tuple[StageConfig, ...]


def group_stages(stages: Sequence[StageConfig]) -> list[Group]:
    """The stages at the latents' resolution, then for each doubling of space the stages up to the next.

    A stage that refines time alone belongs to the doubling of space that follows it.
    """
    groups: list[list[StageConfig]] = [[]]
    for stage in stages:
        begun = groups[-1]
        waits = bool(begun) and begun[-1].temporal_factor > 1 and begun[-1].spatial_factor == 1
        if stage.upsampler is not None and not waits:
            groups.append([])
        groups[-1].append(stage)
    return [tuple(group) for group in groups]
