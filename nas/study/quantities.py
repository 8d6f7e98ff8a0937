"""Limits as people write them: numbers of parameters and of bytes."""

import argparse
import re

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}
_LIMIT = re.compile(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", re.IGNORECASE)


def parse_count(text: str) -> float:
    """A number of things: "5M", "500k", "5000000"; case and spaces do not matter.

    Raises:
        ValueError: it is something else, or not positive.
    """
    return _read(text, _COUNTS, "a number such as 5M or 500k")


def parse_bytes(text: str) -> float:
    """A number of bytes, in powers of ten: "200MB", "1.5GB"; case and spaces do not matter.

    Raises:
        ValueError: it is something else, without a unit, or not positive.
    """
    return _read(text, _BYTES, "a size such as 20MB or 1.5GB")


def byte_count(text: str) -> int:
    """A number of bytes, as `parse_bytes` reads it, for an option."""
    try:
        return max(1, round(parse_bytes(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _read(text: str, units: dict[str, float], wanted: str) -> float:
    found = _LIMIT.fullmatch(text.strip())
    scale = units.get(found[2].lower()) if found else None
    if found is None or scale is None:
        raise ValueError(f"expected {wanted}, got {text[:40]!r}")
    value = float(found[1]) * scale
    if not 0 < value < float("inf"):
        raise ValueError(f"expected {wanted}, more than 0, got {text[:40]!r}")
    return value
