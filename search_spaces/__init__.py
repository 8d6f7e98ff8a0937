"""How parts make a decoder: latent geometry, decoder configs, published presets and search spaces.

A search space is one file in this folder with a `SPACE`.
"""

import importlib
import pkgutil

from search_spaces.config import DecoderConfig, StageConfig
from search_spaces.decoder import Decoder
from search_spaces.latent_spec import LatentSpec
from search_spaces.presets import PRESETS, adapt
from search_spaces.space import SearchSpace
from search_spaces.warm_starts import warm_starts

__all__ = [
    "PRESETS",
    "SEARCH_SPACES",
    "Decoder",
    "DecoderConfig",
    "LatentSpec",
    "SearchSpace",
    "StageConfig",
    "adapt",
    "warm_starts",
]


def _find_spaces() -> dict[str, SearchSpace]:
    modules = [importlib.import_module(found.name) for found in pkgutil.iter_modules(__path__, f"{__name__}.")]
    spaces = [module.SPACE for module in modules if hasattr(module, "SPACE")]
    return {space.name: space for space in spaces}


SEARCH_SPACES: dict[str, SearchSpace] = _find_spaces()
"""Every registered space by its name."""
