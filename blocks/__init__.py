"""The parts of a decoder, one per file, found by being in this folder.

`layers` holds what parts are made of, `rewrites` changes finished parts, `time_context` is what they know about time.
"""

import importlib
import pkgutil

from blocks.registry import (
    Block,
    BlockConfig,
    NotBuildableError,
    Shortcut,
    block_config,
    build_block,
    choice,
    get_block,
    list_blocks,
    register_block,
)
from blocks.time_context import TimeContext

__all__ = [
    "Block",
    "BlockConfig",
    "NotBuildableError",
    "Shortcut",
    "TimeContext",
    "block_config",
    "build_block",
    "choice",
    "get_block",
    "list_blocks",
    "register_block",
]

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)
