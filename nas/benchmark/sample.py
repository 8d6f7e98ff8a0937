"""Which decoders the benchmark is about: a fixed sample, as many of each latency band, published designs among them."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import inf
from typing import Any

from blocks import get_block
from search_spaces import PRESETS, SEARCH_SPACES, DecoderConfig, LatentSpec, adapt

BANDS = ((1.0, 2.0), (2.0, 4.0), (4.0, 8.0))
"""Latency bands in milliseconds per frame, from above the first number to the second: eightfold from end to end.

A search has to tell decoders of like latency apart; that a slow one beats one of an eighth of its latency is no news.
"""

_DIVISORS = (1, 2, 4, 8)
"""What the widths of published designs are divided by."""
_LARGEST_WIDTHS = (32, 48, 64, 96, 128)
"""Channels above which a walk draws no width, another for each walk: most decoders with more are over the last band."""
_LARGEST_DEPTHS = (1, 2, 3, 5)
"""Blocks above which a walk draws no depth, likewise."""
_MOST_DRAWS = 20_000
"""Random decoders that are looked at before the sample is given up."""


@dataclass(frozen=True)
class Entry:
    """One decoder of the sample."""

    title: str
    """Name of the published design, or space and number of the random walk."""
    config: DecoderConfig
    """The architecture."""
    latency_ms: float
    """Predicted latency in milliseconds per frame."""

    @property
    def band(self) -> int:
        """Index of its latency band."""
        found = band_of(self.latency_ms)
        assert found is not None
        return found


def band_of(latency_ms: float) -> int | None:
    """Index of the band that a latency is in; None if it is in none."""
    return next((index for index, (low, high) in enumerate(BANDS) if low < latency_ms <= high), None)


def draw_sample(
    latents: LatentSpec,
    per_band: int,
    seed: int,
    affordable: Callable[[DecoderConfig], bool],
    latency: Callable[[DecoderConfig], float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Entry]:
    """The same sample for the same arguments, by band.

    Args:
        latents: what the decoders decode.
        per_band: decoders of each band; at most a third of them are published designs.
        seed: random seed of the walks through the spaces.
        affordable: whether a decoder is small enough to be trained; asked before its latency, which costs more.
        latency: predicted milliseconds per frame, infinite for what cannot be exported.
        progress: called with the number of decoders found and of all.

    Raises:
        ValueError: the spaces have too few such decoders.
    """
    bands: list[list[Entry]] = [[] for _ in BANDS]
    seen: set[str] = set()

    def offer(title: str, config: DecoderConfig, room: int) -> None:
        if config.digest() in seen or not affordable(config):
            return
        seen.add(config.digest())
        milliseconds = latency(config)
        band = band_of(milliseconds)
        if band is not None and len(bands[band]) < room:
            bands[band].append(Entry(title, config, milliseconds))
            progress(sum(map(len, bands)), per_band * len(BANDS))

    for title, config in published_designs(latents):
        offer(title, config, per_band // 3)
    for _, (title, config) in zip(range(_MOST_DRAWS), _random_walks(latents, seed), strict=False):
        if all(len(band) == per_band for band in bands):
            return [entry for band in bands for entry in band]
        offer(title, config, per_band)
    found = ", ".join(f"{len(band)} of {per_band}" for band in bands)
    raise ValueError(f"{_MOST_DRAWS} random decoders gave {found} in the bands: ask for fewer")


def published_designs(latents: LatentSpec) -> Iterator[tuple[str, DecoderConfig]]:
    """The published designs at several widths, each without and with a linear shortcut, where they fit the latents."""
    shortcut = get_block("linear_shortcut").Config()
    for divisor in _DIVISORS:
        for name, preset in PRESETS.items():
            try:
                config = adapt(preset, latents, divisor)
            except ValueError:
                continue  # the design has no room for these latents
            title = name if divisor == 1 else f"{name} x 1/{divisor}"
            yield title, config
            yield f"{title} + linear", replace(config, shortcut=shortcut)


def _random_walks(latents: LatentSpec, seed: int) -> Iterator[tuple[str, DecoderConfig]]:
    """Decoders of all spaces in turn: three of five with the largest linear shortcut, one with none."""
    source = random.Random(seed)
    first, *others = get_block("linear_shortcut").Config.all_configs()
    # Most decoders that a search looks at have one, and to tell those apart is what it has to do.
    shortcuts = (first, first, first, *others, None)
    for number in count():
        for name, space in SEARCH_SPACES.items():
            drawn = space.suggest(_Narrow(source), latents)
            yield f"{name} #{number}", replace(drawn, shortcut=shortcuts[number % len(shortcuts)])


class _Narrow:
    """Decides at random, widths and depths up to what it has drawn first."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._largest = {"width": source.choice(_LARGEST_WIDTHS), "depth": source.choice(_LARGEST_DEPTHS)}

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`."""
        options = list(choices)
        kind = name.split(".")[1] if name.startswith("stage") else ""
        if kind in self._largest:
            options = [size for size in options if size <= self._largest[kind]] or [min(options)]
        return self._random.choice(options)


NOT_EXPORTABLE = inf
"""Latency of what no phone can run."""
