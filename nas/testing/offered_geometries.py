"""At which widths the registered search spaces offer a part."""

from collections.abc import Iterator

from blocks import get_block
from search_spaces import SEARCH_SPACES, SearchSpace
from search_spaces.head_widths import HeadWidths

_LATENT_CHANNELS = (4, 12, 16, 48, 128)
"""Channels of the latents of all teachers, and of an image autoencoder."""


def offered_geometries(part: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Name of a space, and arguments with which it may build this part, each once per space."""
    for name, space in SEARCH_SPACES.items():
        offers = {"stem": _stem, "block": _block, "upsampler": _upsampler, "head": _head, "shortcut": _shortcut}
        seen = {tuple(sorted(each.items())): each for each in offers[get_block(part).role](space, part)}
        yield from ((name, geometry) for geometry in seen.values())


def _stem(space: SearchSpace, part: str) -> Iterator[dict[str, int]]:
    if part in space.stems:
        for channels in _LATENT_CHANNELS:
            yield from ({"in_channels": channels, "out_channels": width} for width in space.levels[0].widths)


def _block(space: SearchSpace, part: str) -> Iterator[dict[str, int]]:
    """A block keeps the width of its stage, or comes from the level before (where it changes the width)."""
    if part in space.middles:
        yield from ({"in_channels": width, "out_channels": width} for width in space.levels[0].widths)
    for index, level in enumerate(space.levels):
        if part in level.blocks:
            for width in level.widths:
                yield {"in_channels": width, "out_channels": width}
                for before in _before(space, index):
                    yield {"in_channels": before, "out_channels": width}
                    yield {"in_channels": before // 2, "out_channels": width}


def _upsampler(space: SearchSpace, part: str) -> Iterator[dict[str, int]]:
    """An upsampler has the width after a transition, changes the width, or halves it."""
    if part in space.upsamplers:
        for index, level in enumerate(space.levels):
            for before in _before(space, index):
                for narrow in (*level.widths, before // 2):
                    yield {"in_channels": before, "out_channels": narrow, "temporal_factor": 2, "spatial_factor": 2}
            for width in level.widths:
                yield {"in_channels": width, "out_channels": width, "temporal_factor": 3, "spatial_factor": 2}


def _head(space: SearchSpace, part: str) -> Iterator[dict[str, int]]:
    factors = [1] * (part in space.plain_heads) + [2, 4] * (part in space.heads)
    for factor in factors:
        if factor <= space.largest_head_factor and get_block(part).supports_factor(factor):
            before = HeadWidths.before(part, factor)
            for level in space.levels[1:] or space.levels:
                fitting = (width for width in level.widths if before.fit(width) == width)
                yield from ({"in_channels": width, "spatial_factor": factor} for width in fitting)


def _shortcut(space: SearchSpace, part: str) -> Iterator[dict[str, int]]:
    if part in space.shortcuts:
        for channels in _LATENT_CHANNELS:
            yield {"in_channels": channels, "temporal_factor": 4, "spatial_factor": 8, "leading": 1}


def _before(space: SearchSpace, index: int) -> tuple[int, ...]:
    """Widths of the level before; the last level follows itself at finer resolutions."""
    before = space.levels[max(index - 1, 0)].widths if index else ()
    return (*before, *space.levels[index].widths) if index == len(space.levels) - 1 else before
