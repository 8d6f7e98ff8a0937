"""coremltools without its messages about systems that are not a Mac, and without its progress bars."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_EXPECTED_MESSAGES = ("Torch version ", "Failed to load _ML")
"""Beginnings of what coremltools logs at import: torch is newer than it knows; off a Mac it cannot run models."""


def import_coremltools() -> ModuleType:
    """The package; takes seconds the first time."""
    logging.getLogger("coremltools").addFilter(_is_unexpected)
    import coremltools

    package: ModuleType = coremltools
    return package


@contextmanager
def without_deprecation_warnings() -> Iterator[None]:
    """What torch warns about torch.export, and coremltools about itself: nothing that a caller could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Function _TORCH_OPS_REGISTRY", DeprecationWarning)
        yield


@contextmanager
def quiet_coremltools() -> Iterator[ModuleType]:
    """The package while it converts; its progress bars and messages are left out, its errors are raised."""
    package = import_coremltools()
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with without_deprecation_warnings(), contextlib.redirect_stderr(io.StringIO()):
            yield package
    finally:
        logger.setLevel(level)


def _is_unexpected(record: Any) -> bool:
    return not str(record.msg).startswith(_EXPECTED_MESSAGES)
