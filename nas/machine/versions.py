"""Versions of everything that numbers may depend on."""

import importlib.metadata
import platform

import nas

_PACKAGES = ("torch", "optuna", "diffusers", "einops", "lpips", "coremltools", "av")


def versions() -> dict[str, str]:
    """Version of Python, of this program and of the packages that it computes with, as far as they are installed."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    # Read from the distributions that are there: asking for one that is not is an error, and not needed here.
    installed = {name: importlib.metadata.version(name) for name in _PACKAGES if _is_installed(name)}
    return found | installed | {"turbo-vaed-nas": nas.__version__}


def _is_installed(name: str) -> bool:
    return next(iter(importlib.metadata.distributions(name=name)), None) is not None
