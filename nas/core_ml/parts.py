"""The parts of a decoder at their places, each with all that its conversion alone needs. Nothing is computed."""

from collections.abc import Iterator
from dataclasses import dataclass

from blocks import BlockConfig, get_block
from blocks.time_context import Layout, TemporalMode
from nas.core_ml.steps import Shape
from search_spaces import DecoderConfig


@dataclass(frozen=True)
class Part:
    """A part at its place in a decoder, for one clip of one size."""

    config: BlockConfig
    """Config of the part."""
    in_channels: int
    """Channels of the input."""
    geometry: tuple[tuple[str, int], ...]
    """Names and values of the other arguments that the part is built with: channels and factors."""
    grid: tuple[int, int, int]
    """Frames, height and width of the input."""
    incoming: Layout
    """Layout in which the input comes."""
    outgoing: Layout
    """Layout that the next part takes, or that of the frames to which a linear shortcut is added."""
    mode: TemporalMode
    """Whether the decoder is causal or bidirectional."""
    drop_leading: bool
    """Whether upsampling in time drops leading frames, as the latents' frame rule asks."""
    added_to: Shape = ()
    """Shape of the frames that a linear shortcut is added to, in the outgoing layout; () for all other parts."""
    ends: bool = False
    """Whether the part returns the decoder's frames."""
    images: bool = False
    """Whether the latents have no time, so that each frame is a clip of its own."""


def decoder_parts(config: DecoderConfig, num_frames: int, height: int, width: int) -> list[tuple[str, Part]]:
    """Every part with its stage (stem, stage0, ..., head, shortcut), in the order of execution. Nothing is built.

    Args:
        config: the architecture.
        num_frames: decoded frames of one clip.
        height: frame height in pixels.
        width: frame width in pixels.

    Raises:
        ValueError: the frames are not on the grid of the latents.
    """
    latents = config.latents
    channels, *size = latents.latent_shape(num_frames, height, width)
    first_grid = grid = (size[0], size[1], size[2])
    drops, images = config.drops_leading(size[0]), latents.temporal == 1
    found: list[tuple[str, Part]] = []
    layout: Layout = "video"
    places = list(_places(config))
    for stage, part, geometry in places:
        block, shortcut = get_block(part.name), stage == "shortcut"
        found.append(
            (
                stage,
                Part(
                    part,
                    in_channels=latents.channels if shortcut else channels,
                    geometry=tuple(geometry.items()),
                    grid=first_grid if shortcut else grid,
                    # A shortcut sees the latents, not what the head returned, and is added in the head's layout.
                    incoming="video" if shortcut else layout,
                    outgoing=layout if shortcut else block.output_layout,
                    mode=config.temporal_mode,
                    drop_leading=drops,
                    added_to=_frames_shape(grid, layout, images) if shortcut else (),
                    ends=len(found) == len(places) - 1,
                    images=images,
                ),
            )
        )
        if not shortcut:
            channels, layout = geometry.get("out_channels", channels), block.output_layout
            grid = finer_grid(grid, geometry, drops)
    return found


def finer_grid(grid: tuple[int, int, int], geometry: dict[str, int], drop_leading: bool) -> tuple[int, int, int]:
    """Frames, height and width after a part with these factors, as every upsampler and head has to make them."""
    frames, height, width = grid
    in_time, in_space = geometry.get("temporal_factor", 1), geometry.get("spatial_factor", 1)
    return frames * in_time - (in_time - 1) * drop_leading, height * in_space, width * in_space


def _frames_shape(grid: tuple[int, int, int], layout: Layout, images: bool) -> Shape:
    frames, height, width = grid
    if layout == "frames":
        return frames, 3, height, width
    return (frames, 3, 1, height, width) if images else (1, 3, frames, height, width)


def _places(config: DecoderConfig) -> Iterator[tuple[str, BlockConfig, dict[str, int]]]:
    """Stage, config and geometry of every part in the order of execution."""
    yield "stem", config.stem, {"out_channels": config.stages[0].width}
    for index, stage in enumerate(config.stages):
        width, name = {"out_channels": stage.width}, f"stage{index}"
        if stage.transition is not None:
            yield name, stage.transition, width
        if stage.upsampler is not None:
            factors = {"temporal_factor": stage.temporal_factor, "spatial_factor": stage.spatial_factor}
            yield name, stage.upsampler, width | factors
        for _ in range(stage.depth):
            yield name, stage.block, width
    yield "head", config.head, {"spatial_factor": config.head_factor}
    if config.shortcut is not None:
        yield "shortcut", config.shortcut, config.latents.patch_geometry()


def result_shape(part: Part) -> Shape:
    """Shape of what a part returns when it runs alone: features in the next part's layout, or the decoder's frames."""
    geometry = dict(part.geometry)
    frames, height, width = finer_grid(part.grid, geometry, part.drop_leading)
    channels = geometry.get("out_channels", 3)
    if part.outgoing == "frames" and not part.ends:
        return frames, channels, height, width
    return (frames, channels, 1, height, width) if part.images else (1, channels, frames, height, width)
