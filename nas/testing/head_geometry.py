"""What a head declares of its spatial factors and widths, compared with what it takes."""

from collections.abc import Iterator

from blocks import BlockConfig, build_block, get_block
from nas.testing.block_parts import Part, head_width


def broken_promises(config: BlockConfig) -> Iterator[str]:
    """What is wrong, one line each: factors from 1 to 4, widths on the declared multiple and one channel beside it."""
    head = get_block(config.name)
    for factor in (1, 2, 3, 4):
        width, multiple = head_width(config.name, factor), head.width_multiple(factor)
        if not head.supports_factor(factor):
            if _build(config, width, factor) is not None:
                yield f"can be built for a spatial factor of {factor}, but does not declare it"
            continue
        for channels in (width, width + multiple):
            built = _build(config, channels, factor)
            if built is None:
                yield f"declares a spatial factor of {factor} and widths by {multiple}, but refuses {channels} channels"
                continue
            got, wanted = tuple(built.run(built.input()).shape), (1, 3, 3, 4 * factor, 6 * factor)
            if got != wanted:
                yield f"{channels} channels, a spatial factor of {factor}: output is {got}, not {wanted}"
        if multiple > 1 and _build(config, width + 1, factor) is not None:
            yield f"takes {width + 1} channels for a spatial factor of {factor}, but declares multiples of {multiple}"


def _build(config: BlockConfig, channels: int, factor: int) -> Part | None:
    """The head; None if it refuses this geometry with a ValueError."""
    try:
        block = build_block(config, channels, spatial_factor=factor)
    except ValueError:
        return None
    return Part(block, config, channels, 3, spatial_factor=factor)
