"""Tiles of a frame that are decoded one after the other and give the frames of one decode, without any seam.

A tile is decoded with the latents around it that its pixels see (`nas.model.receptive_field`), and what those make is
cut off. So no tiles overlap and nothing is blended; at the border of a frame a tile has the padding of the frame.
"""

from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

from blocks.time_context import State
from nas.model.receptive_field import Reach, find_halo
from nas.terminal.errors import UserError
from search_spaces import Decoder

_DEFAULT_PIXELS = 256
"""Height and width of a tile where nothing else is asked for ..."""
_LEAST_HALOS = 4
"""... or as many halos if that is more: what is computed is then at most 2.25 times what is kept."""


@dataclass(frozen=True)
class Span:
    """Where a tile lies along one axis, in latents."""

    first: int
    """First latent whose pixels are kept."""
    end: int
    """Latent after the last of these."""
    needed_first: int
    """First latent that is decoded for them."""
    needed_end: int
    """Latent after the last of these."""

    @classmethod
    def cut(cls, size: int, longest: int, halo: Reach) -> list["Span"]:
        """`size` latents in as few and as equal spans as can be, of `longest` latents at most, each with its halo."""
        count = -(-size // longest)
        ends = [size * number // count for number in range(count + 1)]
        return [
            cls(first, end, max(0, first - halo.before), min(size, end + halo.after)) for first, end in pairwise(ends)
        ]

    @property
    def needed(self) -> slice:
        """Of the latents, those that are decoded."""
        return slice(self.needed_first, self.needed_end)

    def kept(self, scale: int) -> slice:
        """Of the pixels that were decoded, `scale` per latent, those that are kept."""
        return slice((self.first - self.needed_first) * scale, (self.end - self.needed_first) * scale)

    def place(self, scale: int) -> slice:
        """Where they belong among all pixels."""
        return slice(self.first * scale, self.end * scale)


class TiledDecoder:
    """A decoder that decodes in tiles. It is called, and streams, as a `Decoder` does.

    Args:
        decoder: the student.
        height: of a tile in pixels, rounded up to whole latents, without what is decoded around it; None: what suits.
        width: likewise.

    Raises:
        UserError: a part of the decoder sees the whole frame.
    """

    def __init__(self, decoder: Decoder, height: int | None = None, width: int | None = None) -> None:
        self._decoder = decoder
        self._latents = decoder.config.latents
        self.halos = find_halo(decoder.config)
        """Latents that are decoded around a tile, along height and along width."""
        self.height, self.width = (
            self._in_latents(pixels, halo) for pixels, halo in zip((height, width), self.halos, strict=True)
        )

    def __call__(self, latents: Tensor) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, 3, t', h', w')`.

        Where the decoder can stream and nobody wants a gradient, each tile is a stream of single latent frames: what
        this takes beside the frames then depends neither on their size nor on their number.
        """
        self._decoder.check_latents(latents)
        streams = self._decoder.can_stream and not torch.is_grad_enabled()
        frames = self._empty(latents, self._latents.num_frames(latents.shape[2]))
        for tile in self._tiles(latents):
            state, done = None, 0
            for chunk in torch.split(_needed(latents, tile), 1 if streams else latents.shape[2], dim=2):
                if streams:
                    pixels, state = self._decoder.stream(chunk, state)
                else:
                    pixels = self._decoder(chunk)
                self._put(pixels, tile, frames.narrow(2, done, pixels.shape[2]))
                done += pixels.shape[2]
        return frames

    def stream(self, latents: Tensor, states: tuple[State, ...] | None = None) -> tuple[Tensor, tuple[State, ...]]:
        """One chunk of a stream; its state is that of every tile, row by row."""
        self._decoder.check_latents(latents)
        count = latents.shape[2]
        frames = self._empty(
            latents, self._latents.num_frames(count) if states is None else count * self._latents.temporal
        )
        new_states: list[State] = []
        for index, tile in enumerate(self._tiles(latents)):
            pixels, state = self._decoder.stream(_needed(latents, tile), None if states is None else states[index])
            self._put(pixels, tile, frames)
            new_states.append(state)
        return frames, tuple(new_states)

    def _in_latents(self, pixels: int | None, halo: Reach) -> int:
        if pixels is None:
            return max(-(-_DEFAULT_PIXELS // self._latents.spatial), _LEAST_HALOS * max(halo.before, halo.after))
        if pixels < 1:
            raise UserError(f"a tile has at least 1 pixel a side, got {pixels}")
        return -(-pixels // self._latents.spatial)

    def _tiles(self, latents: Tensor) -> list[tuple[Span, Span]]:
        """Rows and columns of every tile, row by row."""
        height, width = latents.shape[3:]
        rows, columns = self.halos
        return list(product(Span.cut(height, self.height, rows), Span.cut(width, self.width, columns)))

    def _empty(self, latents: Tensor, count: int) -> Tensor:
        batch, (height, width), scale = len(latents), latents.shape[3:], self._latents.spatial
        return latents.new_empty(batch, 3, count, height * scale, width * scale)

    def _put(self, pixels: Tensor, tile: tuple[Span, Span], frames: Tensor) -> None:
        """Copy what is kept of a decoded tile to its place."""
        scale = self._latents.spatial
        rows, columns = tile
        kept = pixels[..., rows.kept(scale), columns.kept(scale)]
        frames[..., rows.place(scale), columns.place(scale)] = kept


def _needed(latents: Tensor, tile: tuple[Span, Span]) -> Tensor:
    """The latents that a tile is decoded from."""
    rows, columns = tile
    return latents[..., rows.needed, columns.needed]
