"""The small decoder that is exported in tests, and latents for it."""

import torch
from torch import Tensor

from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec

WAN = LatentSpec(
    channels=16,
    spatial=8,
    temporal=4,
    mean=tuple(i / 8 - 1 for i in range(16)),
    std=tuple(1 + i / 8 for i in range(16)),
)


PARTS = {
    "stem": "conv3d_stem",
    "head": "pixel_shuffle_head",
    "plain_head": "conv3d_head",
    "stage0.block": "depthwise_separable_conv3d",
    "stage1.block": "depthwise_separable_conv3d",
    "stage2.block": "memory_conv2d",
    "stage3.block": "memory_conv2d",
    **{f"stage{index}.upsampler": "decoupled_pixel_shuffle3d" for index in (1, 2, 3)},
}
"""The parts of the small decoder, whatever else a space offers."""


class Fixed:
    """Chooses what is asked for, else one of `PARTS`, else what is offered first: a small decoder."""

    def __init__(self, **wanted: object) -> None:
        self.wanted = PARTS | {name.replace("_x_", "."): value for name, value in wanted.items()}

    def suggest_categorical(self, name, choices, /):  # type: ignore[no-untyped-def]
        return self.wanted.get(name, choices[0])


def small_config(latents: LatentSpec = WAN) -> DecoderConfig:
    wanted = {"stage0_x_block": "memory_conv2d", "stage1_x_upsampler": "nearest_conv3d", "has_shortcut": True}
    return SEARCH_SPACES["hybrid"].suggest(Fixed(**wanted), latents)


def small_decoder(latents: LatentSpec = WAN) -> Decoder:
    """Causal, with a shortcut, with frames in about [-1, 1]."""
    torch.manual_seed(0)
    decoder = Decoder(small_config(latents)).eval()
    decoder.initialise_from_latent_statistics()
    return decoder


def latents_of(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 16, frames, 2, 3, generator=torch.Generator().manual_seed(seed))
