"""Warm starts: published designs, scaled to fit, as the first proposals of a study."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from blocks import get_block
from search_spaces.config import DecoderConfig
from search_spaces.latent_spec import LatentSpec
from search_spaces.presets import PRESETS, adapt
from search_spaces.space import SearchSpace

_DIVISORS = (1, 2, 4, 8)
"""Numbers that the widths of a design are divided by, one after the other, until it fits."""


def warm_starts(
    space: SearchSpace, latents: LatentSpec, fits: Callable[[DecoderConfig], bool]
) -> Iterator[tuple[str, DecoderConfig]]:
    """Names and configs of the published designs, scaled to these latents; all of them points of the space.

    Each as published, then with a half, a quarter and an eighth of its widths until it fits; those that do not fit are
    given, too. One that fits gets a linear shortcut if the space has one with which it still fits.

    Args:
        space: the space that the study searches; designs that it does not hold are left out.
        latents: the latents that are decoded.
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
    """With the first linear shortcut of the space with which it still fits; as it is if there is none."""
    for part in map(get_block, space.shortcuts):
        for options in part.Config.all_configs():
            helped = replace(config, shortcut=options)
            if fits(helped):
                return f"{title} + {part.label}", helped
    return title, config


def _in_space(preset: DecoderConfig, space: SearchSpace, latents: LatentSpec, divisor: int) -> DecoderConfig | None:
    """The design for these latents; None if it cannot be adapted to them, or is not in the space."""
    try:
        config = adapt(preset, latents, divisor)
        space.params(config)
    except ValueError:
        return None
    return config
