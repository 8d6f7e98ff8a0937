"""How parts make a decoder: latent geometry, decoder configs, published presets and search spaces.

A search space is one file in this folder with a `SPACE`; one from elsewhere is made known by `register_space`.
"""

import importlib
import pkgutil

from search_spaces.config import DecoderConfig, StageConfig
from search_spaces.decoder import Decoder
from search_spaces.latent_spec import LatentSpec
from search_spaces.presets import PRESETS, adapt
from search_spaces.registry import SEARCH_SPACES, register_space
from search_spaces.seeds import published_seeds
from search_spaces.space import SearchSpace

__all__ = [
    "PRESETS",
    "SEARCH_SPACES",
    "Decoder",
    "DecoderConfig",
    "LatentSpec",
    "SearchSpace",
    "StageConfig",
    "adapt",
    "published_seeds",
    "register_space",
]

for _found in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    _module = importlib.import_module(_found.name)
    if hasattr(_module, "SPACE"):
        register_space(_module.SPACE, _found.name)
