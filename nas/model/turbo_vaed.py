"""TurboVAED: a finished student as a diffusers model, in place of the teacher's decoder."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nas.machine.torchvision_operators import import_torchvision
from nas.model.published import RELEASES, load_published
from search_spaces import Decoder, DecoderConfig

import_torchvision()

from diffusers import ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402
from diffusers.models.autoencoders.vae import DecoderOutput  # noqa: E402


class TurboVAED(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A student decoder with the loading, saving and calling conventions of diffusers' autoencoders.

    Latents are `(b, c, t, h, w)`, raw, exactly as the teacher's `decode` takes them; frames `(b, 3, t', h', w')`, RGB
    in [-1, 1]. There is no encoder: use the teacher's.

    Args:
        architecture: of the decoder, `DecoderConfig.to_dict()`.
        teacher: name of the teacher that it was distilled from.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, architecture: dict[str, Any], teacher: str) -> None:
        super().__init__()
        self.decoder = Decoder(DecoderConfig.from_dict(architecture))

    @classmethod
    def from_published(cls, path_or_repo: str | Path, preset: str) -> Self:
        """A published Turbo-VAED (arXiv 2508.09136) with the weights that its authors released.

        Args:
            path_or_repo: the released file or a folder with it, or `owner/name@revision` on the hub, where the revision
                has all its 40 digits.
            preset: `turbo_vaed_hunyuan`, `turbo_vaed_cog`, `turbo_vaed_dc` or `turbo_vaed_ltx`.

        Raises:
            UserError: there is no such file, it cannot be read, or it is not of this preset.
        """
        decoder = load_published(path_or_repo, preset)
        with torch.device("meta"):
            model: Self = cls(decoder.config.to_dict(), RELEASES[preset].teacher).eval()
        model.decoder = decoder
        return model

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Latents `(b, c, t, h, w)` -> frames `(b, 3, t', h', w')` in [-1, 1]."""
        frames = self.decoder(z.to(self.dtype)).clamp(-1, 1)
        return DecoderOutput(sample=frames) if return_dict else (frames,)

    @torch.inference_mode()
    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents in chunks of any length along time -> the frames of each chunk, in [-1, 1].

        The state lives in this generator, so several streams can share one model. Causal decoders only.
        """
        state = None
        for chunk in chunks:
            frames, state = self.decoder.stream(chunk.to(self.dtype), state)
            yield frames.clamp(-1, 1)
