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

    Each as published, then narrower until it fits; what fits comes with the first shortcut of the space.

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
            yield _with_shortcut(title, config, space)
            break


def _with_shortcut(title: str, config: DecoderConfig, space: SearchSpace) -> tuple[str, DecoderConfig]:
    if not space.shortcuts:
        return title, config
    part = get_block(space.shortcuts[0])
    return f"{title} + {part.label}", replace(config, shortcut=part.Config())


def _in_space(preset: DecoderConfig, space: SearchSpace, latents: LatentSpec, divisor: int) -> DecoderConfig | None:
    """The design for these latents; None if they or the space have no room for it."""
    try:
        config = adapt(preset, latents, divisor)
        space.params(config)
    except ValueError:
        return None
    return config
