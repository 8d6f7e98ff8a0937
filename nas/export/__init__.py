"""Turning a finished decoder into what a device runs."""

from nas.export.coreml import to_core_ml

__all__ = ["to_core_ml"]
