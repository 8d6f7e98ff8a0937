"""How a student decodes as a diffusers model: at once or in slices of a batch, tiles of a frame, chunks of a stream."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from nas.machine.torchvision_operators import import_torchvision
from nas.model.tiling import TiledDecoder
from search_spaces import Decoder

import_torchvision()

from diffusers import ModelMixin  # noqa: E402
from diffusers.models.autoencoders.vae import DecoderOutput  # noqa: E402
from diffusers.utils.accelerate_utils import apply_forward_hook  # noqa: E402


class DecodingModel(ModelMixin):  # type: ignore[misc]
    """The part of `TurboVAED` that decodes.

    Latents are `(b, c, t, h, w)`, raw. Frames are `(b, 3, t', h', w')`, RGB in [-1, 1].
    """

    decoder: Decoder
    """The student."""

    def __init__(self) -> None:
        super().__init__()
        self.use_slicing = False
        self._tile: tuple[int | None, int | None] | None = None

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def decode(
        self, z: Tensor, temb: Tensor | bool | None = None, return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor]:
        """Latents `(b, c, t, h, w)` -> frames `(b, 3, t', h', w')` in [-1, 1].

        Args:
            z: the latents, raw.
            temb: the noise level that LTX's pipelines hand over, which changes nothing here. Where the other teachers
                take `return_dict` second, so does this.
            return_dict: whether the frames are the `sample` of an output, or the only member of a tuple.
        """
        if isinstance(temb, bool):
            return_dict = temb
        pieces = torch.split(z.to(self.dtype), 1 if self.use_slicing else max(len(z), 1))
        decoded = [_clamped(self._decoder(piece)) for piece in pieces]
        frames = decoded[0] if len(decoded) == 1 else torch.cat(decoded)
        return DecoderOutput(sample=frames) if return_dict else (frames,)

    @apply_forward_hook  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents in chunks of any length along time -> the frames of each chunk, in [-1, 1], without gradients.

        The state lives in this generator, so several streams can share one model. Causal decoders only.
        """
        state: Any = None
        decoder = self._decoder
        for chunk in chunks:
            frames, state = decoder.stream(chunk.to(self.dtype), state)
            yield _clamped(frames)

    @property
    def _decoder(self) -> Decoder | TiledDecoder:
        return self.decoder if self._tile is None else TiledDecoder(self.decoder, *self._tile)

    def enable_slicing(self) -> None:
        """Decode the clips of a batch one by one: the same frames in the memory that one clip takes."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """Decode a batch at once again."""
        self.use_slicing = False

    def enable_tiling(
        self,
        tile_sample_min_height: int | None = None,
        tile_sample_min_width: int | None = None,
        *overlaps: object,
        **more_overlaps: object,
    ) -> None:
        """Decode and stream frames in tiles: the same frames (to 1e-5 in float32) in the memory that a tile takes.

        Args:
            tile_sample_min_height: pixels of a tile, without what is decoded around it; None: what suits the decoder.
            tile_sample_min_width: likewise.
            overlaps: what diffusers' VAEs take beside these. How far tiles overlap follows from the decoder here.
            more_overlaps: likewise.

        Raises:
            UserError: a part of the decoder sees the whole frame (attention, a norm over space): it is named.
        """
        tile = tile_sample_min_height, tile_sample_min_width
        TiledDecoder(self.decoder, *tile)
        self._tile = tile

    def disable_tiling(self) -> None:
        """Decode whole frames again."""
        self._tile = None


def _clamped(frames: Tensor) -> Tensor:
    """Frames in [-1, 1]; in place unless their gradient is wanted, as they may be most of what fits into memory."""
    return frames.clamp(-1, 1) if frames.requires_grad else frames.clamp_(-1, 1)
