"""The parts of a decoder at their places, each with all that its conversion alone needs. Nothing is computed."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks import Block, BlockConfig
from blocks.time_context import Layout, TemporalMode
from nas.core_ml.steps import Shape
from search_spaces import Decoder, build_skeleton


class UntraceablePartError(Exception):
    """A part asks for the values of what it is given; the message names it and its stage."""


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


def decoder_parts(decoder: Decoder, num_frames: int, height: int, width: int) -> list[tuple[str, Part]]:
    """Every part with its stage (stem, stage0, ..., head, shortcut), in the order of execution.

    Args:
        decoder: only its architecture counts; one on the meta device is run as it is, else a skeleton is built.
        num_frames: decoded frames of one clip.
        height: frame height in pixels.
        width: frame width in pixels.

    Raises:
        ValueError: the frames are not on the grid of the latents.
        UntraceablePartError: what a part does depends on data.
    """
    config = decoder.config
    shape = config.latents.latent_shape(num_frames, height, width)
    if not all(parameter.is_meta for parameter in decoder.parameters()):
        decoder = build_skeleton(config)
    latents, placed = torch.empty(1, *shape, device="meta"), list(_placed(decoder))
    found: list[tuple[str, Part]] = []
    images = config.latents.temporal == 1
    layout: Layout = "video"
    before = latents
    passed = _pass_through(decoder, latents, placed)
    for (stage, config_of_part, block, geometry), (x, out) in zip(placed, passed, strict=True):
        video, shortcut = block.input_layout == "video", stage == "shortcut"
        part = Part(
            config_of_part,
            in_channels=int(x.shape[1]),
            geometry=tuple(geometry.items()),
            grid=(shape[1] if images else int(x.shape[2 if video else 0]), int(x.shape[-2]), int(x.shape[-1])),
            # A shortcut sees the latents, not what the head returned, and is added in the head's layout.
            incoming="video" if shortcut else layout,
            outgoing=layout if shortcut else block.output_layout,
            mode=config.temporal_mode,
            drop_leading=config.latents.drops_leading(shape[1]),
            added_to=tuple(before.shape) if shortcut else (),
            ends=block is placed[-1][2],
            images=images,
        )
        found.append((stage, part))
        layout, before = block.output_layout, out
    return found


_Placed = tuple[str, BlockConfig, Block, dict[str, int]]
"""Stage, config, module and geometry of a part."""


def _pass_through(decoder: Decoder, latents: Tensor, placed: Sequence[_Placed]) -> list[tuple[Tensor, Tensor]]:
    """What goes into each part and what comes out, in the order of execution; the decoder stays as it was."""
    passed: list[tuple[Tensor, Tensor]] = []
    training = decoder.training
    with ExitStack() as hooks, torch.no_grad():
        for _, _, block, _ in placed:
            handle = block.register_forward_hook(lambda _, arguments, out: passed.append((arguments[0], out)))
            hooks.callback(handle.remove)
        try:
            decoder.eval()(latents)
        except RuntimeError as error:
            stage, config, _, _ = placed[min(len(passed), len(placed) - 1)]
            reason = f"not convertible: it cannot be traced without data ({error})"
            raise UntraceablePartError(f"{stage}: {config.name}: {reason}") from error
        finally:
            decoder.train(training)
    return passed


def _placed(decoder: Decoder) -> Iterator[_Placed]:
    """Stage, config, module and geometry of every part in the order of execution."""
    config = decoder.config
    groups = decoder.stage_modules()
    yield "stem", config.stem, _block(groups["stem"]), {"out_channels": config.stages[0].width}
    for index, stage in enumerate(config.stages):
        name = f"stage{index}"
        factors = {"temporal_factor": stage.temporal_factor, "spatial_factor": stage.spatial_factor}
        configs = [(stage.transition, {}), (stage.upsampler, factors), *[(stage.block, {})] * stage.depth]
        present = [(part, geometry) for part, geometry in configs if part is not None]
        modules = [module for parts in groups[name].children() for module in parts.children()]
        for (part, geometry), module in zip(present, modules, strict=True):
            yield name, part, _block(module), {"out_channels": stage.width, **geometry}
    yield "head", config.head, _block(groups["head"]), {"spatial_factor": config.head_factor}
    if config.shortcut is not None:
        yield "shortcut", config.shortcut, _block(groups["shortcut"]), config.latents.patch_geometry()


def _block(module: nn.Module) -> Block:
    assert isinstance(module, Block)
    return module
