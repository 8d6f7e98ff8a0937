"""Latents without time (an image autoencoder's): frame by frame equals the clip, no kernel sees other frames."""

from dataclasses import replace

import pytest
import torch

from blocks.layers.convolutions import Conv3d
from search_spaces import PRESETS, SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, adapt
from search_spaces.choices import RandomChooser
from tests.support.small_decoders import make_config, make_decoder, make_latents

IMAGES = LatentSpec(channels=4, spatial=8, temporal=1)
CONFIGS = {
    **{f"{space}-{seed}": make_config(space, IMAGES, seed) for space in SEARCH_SPACES for seed in range(4)},
    **{name: adapt(preset, IMAGES, 16) for name, preset in PRESETS.items()},
    "looks-ahead": adapt(PRESETS["turbo_vaed_ltx"], replace(IMAGES, causal=False), 16),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_frame_by_frame_equals_the_clip(config: DecoderConfig) -> None:
    decoder = make_decoder(config)
    latents = make_latents(IMAGES, 3, batch=2)
    clip, tapped = decoder.features(latents, (0, len(config.stages) - 1))
    assert clip.shape == (2, 3, 3, 16, 16)
    for index in range(3):
        alone, features = decoder.features(latents[:, :, index : index + 1], tuple(tapped))
        torch.testing.assert_close(clip[:, :, index : index + 1], alone, rtol=1e-5, atol=1e-5)
        for stage, feature in features.items():
            torch.testing.assert_close(tapped[stage][:, :, index : index + 1], feature, rtol=1e-4, atol=1e-4)
    streamed, state = decoder.stream(latents[:, :, :2])
    more, state = decoder.stream(latents[:, :, 2:], state)
    torch.testing.assert_close(torch.cat([streamed, more], dim=2), clip, rtol=1e-5, atol=1e-5)
    assert state == ()


@pytest.mark.parametrize("space", SEARCH_SPACES)
def test_kernels_in_time_are_one_long(space: str) -> None:
    for seed in range(30):
        config = SEARCH_SPACES[space].suggest(RandomChooser(seed), IMAGES)
        with torch.device("meta"):
            convolutions = [module for module in Decoder(config).modules() if isinstance(module, Conv3d)]
            others = [module for module in Decoder(replace_time(config)).modules() if isinstance(module, Conv3d)]
        assert {module.kernel_size[0] for module in convolutions} <= {1}
        assert space == "memory2d" or max(module.kernel_size[0] for module in others) > 1 or not convolutions


def replace_time(config: DecoderConfig) -> DecoderConfig:
    """The same parts for latents with time."""
    first, *others = config.stages
    doubling = next(index for index, stage in enumerate(others) if stage.upsampler is not None)
    others[doubling] = replace(others[doubling], temporal_factor=2)
    return replace(config, latents=replace(IMAGES, temporal=2), stages=(first, *others))
