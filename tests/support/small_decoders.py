"""Small decoders for the latents of every kind of teacher."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from blocks import get_block
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, StageConfig

SPECS = {
    "16ch-4x8x8-leading": LatentSpec(channels=16, spatial=8, temporal=4),
    "48ch-4x16x16-leading": LatentSpec(channels=48, spatial=16, temporal=4),
    "12ch-6x8x8-leading": LatentSpec(channels=12, spatial=8, temporal=6),
    "16ch-4x8x8-leading_if_odd": LatentSpec(channels=16, spatial=8, temporal=4, frame_rule="leading_if_odd"),
    "128ch-4x32x32-multiple": LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False),
    "128ch-8x32x32-leading": LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
}


class Narrow:
    """Chooses at random, but small: one of the two smallest widths, depths and numbers of stages."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        if ".width" in name or name.endswith((".depth", "upsampling_stages")):
            # Before a head that shuffles by 4, at least 4 x 16 channels: a norm over one channel keeps only its sign.
            fitting = [choice for choice in choices if choice >= 64 or not name.endswith(".by16")]
            return self.random.choice(sorted(fitting)[:2])
        return self.random.choice(list(choices))


def make_config(space: str, spec: LatentSpec, seed: int) -> DecoderConfig:
    return SEARCH_SPACES[space].suggest(Narrow(seed), spec)


def make_decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Decoder(config).eval()


def make_latents(
    spec: LatentSpec, frames: int, height: int = 2, width: int = 2, batch: int = 1, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, spec.channels, frames, height, width, generator=generator)


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def small_config(spec: LatentSpec) -> DecoderConfig:
    shuffle = get_block("decoupled_pixel_shuffle3d").Config()
    memory = get_block("memory_conv2d").Config()
    return DecoderConfig(
        latents=spec,
        stem=get_block("conv3d_stem").Config(),
        stages=(
            StageConfig(8, 1, get_block("dense_conv3d").Config()),
            StageConfig(12, 1, memory, upsampler=shuffle, temporal_factor=2, spatial_factor=2),
            StageConfig(16, 0, memory, upsampler=shuffle, temporal_factor=spec.temporal // 2, spatial_factor=2),
        ),
        head=get_block("pixel_shuffle_head").Config(),
        temporal_mode="causal" if spec.causal else "bidirectional",
    )


def small_decoder() -> Decoder:
    """A small causal one: a 3-D stage, a stage with memory that doubles time and space, one that doubles both again."""
    return make_decoder(small_config(SPECS["16ch-4x8x8-leading"]))
