"""Published designs as the first proposals of a study."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from blocks import get_block
from search_spaces.config import DecoderConfig
from search_spaces.latent_spec import LatentSpec
from search_spaces.presets import PRESETS, adapt
from search_spaces.space import SearchSpace

_DIVISORS = (1, 2, 4)
"""Of the widths."""


def published_seeds(
    space: SearchSpace, latents: LatentSpec, fits: Callable[[DecoderConfig], bool]
) -> Iterator[tuple[str, DecoderConfig]]:
    """Names and configs of the published designs, scaled to these latents; all of them points of the space.

    Each as published, then narrower until it fits; what fits comes with a shortcut if the space has one.

    Args:
        space: designs that it does not hold are left out.
        latents: what is decoded.
        fits: whether a decoder is within the budget.
    """
    seen = set()
    for name, preset in PRESETS.items():
        for divisor in _DIVISORS:
            config = _in_space(preset, space, latents, divisor)
            if config is None or config.digest() in seen:
                break
            seen.add(config.digest())
            title = name if divisor == 1 else f"{name} x 1/{divisor}"
            if not fits(config):
                yield title, config
                continue
            yield _with_shortcut(title, config, space, fits)
            break


def _with_shortcut(
    title: str, config: DecoderConfig, space: SearchSpace, fits: Callable[[DecoderConfig], bool]
) -> tuple[str, DecoderConfig]:
    """The first shortcut with which it still fits; without if there is none."""
    for part in map(get_block, space.shortcuts):
        for options in part.Config.all_configs():
            helped = replace(config, shortcut=options)
            if fits(helped):
                return f"{title} + {part.label}", helped
    return title, config


def _in_space(preset: DecoderConfig, space: SearchSpace, latents: LatentSpec, divisor: int) -> DecoderConfig | None:
    """The design for these latents; None if they or the space have no room for it."""
    try:
        config = adapt(preset, latents, divisor)
        space.params(config)
    except ValueError:
        return None
    return config
