"""How far a latent is seen in a student's frames, found by trying every part of its decoder.

No part declares anything, so nothing can go out of date and a plugin's part needs nothing. Each is run alone on narrow
strips of noise with one row of NaN, which every operation hands on, whatever the weights: where NaN comes out is what
that row can change, and a part that sees everything gives nothing else. Running each part alone keeps the strips short
(a probe of whole decoders took up to a minute) and tells which one sees too far. What was found is then proven: a strip
that was cut has to give the same values up to there. That refuses parts that stop NaN, and those that do not treat all
positions alike (windows, coordinates).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from math import ceil, nan

import torch
from torch import Tensor, nn

from blocks import Block, BlockConfig, Shortcut, TimeContext
from nas.terminal.errors import UserError
from search_spaces import Decoder, DecoderConfig

_NARROW = 4
"""Width of a strip; some paddings need more than one position."""
_LENGTHS = (16, 32, 64, 128)
"""Lengths of a strip; what the last does not hold counts as everything."""
_CUT = 5
"""Positions that are cut off a strip: odd, and no multiple of a window."""
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Reach:
    """How far one position is seen beyond its own place, along one axis."""

    before: int
    """Positions of the output before the first that stands for it."""
    after: int
    """Positions after the last."""

    def through(self, part: "Reach", factor: int) -> "Reach":
        """The same after one more part, which makes `factor` positions of one."""
        return Reach(self.before * factor + part.before, self.after * factor + part.after)


@lru_cache(maxsize=16)
def find_halo(config: DecoderConfig) -> tuple[Reach, Reach]:
    """Latents that a tile needs around it, along height and along width.

    Args:
        config: of the decoder; its weights do not matter.

    Raises:
        UserError: a part sees the whole frame, or does not treat all positions alike; names it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # In double precision nothing computes convolutions by transforms, which would spread NaN.
        decoder = Decoder(config).double().eval()
    height, width = _reach(decoder, axis=-2), _reach(decoder, axis=-1)
    return _in_latents(height, config.latents.spatial), _in_latents(width, config.latents.spatial)


def _in_latents(seen: Reach, spatial: int) -> Reach:
    """What is seen in the pixels after a latent is what pixels need of the latents before them."""
    return Reach(before=ceil(seen.after / spatial), after=ceil(seen.before / spatial))


@torch.no_grad()
def _reach(decoder: Decoder, axis: int) -> Reach:
    """Of one latent, in pixels."""
    reach = beside = Reach(0, 0)
    known: dict[object, tuple[Reach, int]] = {}
    for config, (part, shape, made) in zip(_configs(decoder.config), _runs_of_parts(decoder), strict=True):
        alike = config, shape, made
        if alike not in known:
            known[alike] = _reach_of(part, shape, decoder.config, axis)
        seen, factor = known[alike]
        if isinstance(part, Shortcut):
            beside = seen
        else:
            reach = reach.through(seen, factor)
    return Reach(max(reach.before, beside.before), max(reach.after, beside.after))


def _configs(config: DecoderConfig) -> list[BlockConfig]:
    """Of all parts, in the order of execution."""
    stages = [[each.transition, each.upsampler, *[each.block] * each.depth] for each in config.stages]
    return [each for each in (config.stem, *chain(*stages), config.head, config.shortcut) if each is not None]


def _runs_of_parts(decoder: Decoder) -> list[tuple[Block, torch.Size, torch.Size]]:
    """Every part, and the shapes that it takes and makes in the smallest clip with all kinds of frames."""
    found: list[tuple[Block, torch.Size, torch.Size]] = []

    def note(part: nn.Module, arguments: tuple[Tensor, TimeContext], made: Tensor) -> None:
        assert isinstance(part, Block)
        found.append((part, arguments[0].shape, made.shape))

    handles = [
        part.register_forward_hook(note) for group in decoder.stage_modules().values() for part in _outermost(group)
    ]
    latents = decoder.config.latents
    decoder(torch.zeros(1, latents.channels, 1 if latents.temporal == 1 else 3, 2, 2, dtype=torch.float64))
    for handle in handles:
        handle.remove()
    return found


def _outermost(group: nn.Module) -> list[Block]:
    """The parts of a group, without those that parts are made of."""
    if isinstance(group, Block):
        return [group]
    return [block for child in group.children() for block in _outermost(child)]


def _reach_of(part: Block, shape: torch.Size, config: DecoderConfig, axis: int) -> tuple[Reach, int]:
    """How far one position of a part's input is seen in its output, and how many positions become of one."""

    def run(x: Tensor) -> Tensor:
        drop_leading = config.latents.may_drop_leading
        out: Tensor = part(x, TimeContext(1, config.temporal_mode, drop_leading=drop_leading))
        return out

    for length in _LENGTHS:
        strip = _noise(shape, length, axis)
        whole = run(strip)
        factor = whole.shape[axis] // length
        marked = strip.clone()
        marked.select(axis, length // 2).fill_(nan)
        seen = _any_beside(run(marked).isnan(), axis).nonzero().flatten().tolist()
        if seen and seen[0] > 0 and seen[-1] < whole.shape[axis] - 1:
            first, last = length // 2 * factor, (length // 2 + 1) * factor - 1
            reach = Reach(max(0, first - seen[0]), max(0, seen[-1] - last))
            if _holds(run, strip, whole, reach, factor, axis):
                return reach, factor
        if not seen or seen[0] > 0:
            raise _refusal(f"how far {part.name} sees cannot be told: its positions are not treated alike")
    raise _refusal(f"{part.name} sees the whole frame")


def _holds(run: Callable[[Tensor], Tensor], strip: Tensor, whole: Tensor, reach: Reach, factor: int, axis: int) -> bool:
    """Whether a strip that is cut at either end gives the same values up to where the end is seen."""
    length, size = strip.shape[axis], whole.shape[axis]
    for start, end in ((_CUT, length), (0, length - _CUT)):
        piece = run(strip.narrow(axis, start, end - start))
        first = start * factor + reach.after if start else 0
        last = end * factor - reach.before if end < length else size
        wanted = whole.narrow(axis, first, last - first)
        found = piece.narrow(axis, first - start * factor, last - first)
        if not torch.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
            return False
    return True


def _noise(shape: torch.Size, length: int, axis: int) -> Tensor:
    """A strip in the layout of `shape`, `length` along the axis."""
    size = [*shape[:-2], _NARROW, _NARROW]
    size[axis] = length
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _any_beside(where: Tensor, axis: int) -> Tensor:
    """Which positions along one axis are marked anywhere."""
    return where.movedim(axis, 0).flatten(1).any(dim=1)


def _refusal(reason: str) -> UserError:
    return UserError(
        f"tiles would not give the same frames ({reason}): to bound memory decode with stream(chunks), which causal "
        f"decoders can, or batches with enable_slicing()"
    )
