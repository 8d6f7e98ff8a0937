"""Blocks, teachers and search spaces from other packages: modules that register what they have when imported."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from nas.terminal.errors import UserError

GROUP = "turbo_vaed_nas.plugins"
"""Entry-point group of installed packages that have plugins."""

PLUGINS_VARIABLE = "NAS_PLUGINS"
"""Environment variable with the names of further plugin modules, separated by commas."""

_loaded: list[str] = []


def load_plugins(modules: Iterable[str] = ()) -> tuple[str, ...]:
    """Import every plugin once: of entry points, of `NAS_PLUGINS`, and `modules`.

    The processes that this one starts load `modules`, too: they are added to `NAS_PLUGINS`.

    Args:
        modules: importable names; those in the current folder are found.

    Returns:
        What `loaded_plugins` returns.

    Raises:
        UserError: a plugin cannot be imported, or registers a name that is taken.
    """
    # Imported here: nothing but this needs it, and --help has to answer at once.
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        _load(point.module, f"the entry point '{point.name}'", point.load)
    named = dict.fromkeys([*_named(os.environ.get(PLUGINS_VARIABLE, "")), *modules])
    here = str(Path.cwd())
    if named and not {"", here} & set(sys.path):
        sys.path.append(here)  # as it is for `python -m`, but not for an installed command
    for module in named:
        _load(module, f"the plugin '{module}'", partial(importlib.import_module, module))
    if named:
        os.environ[PLUGINS_VARIABLE] = ",".join(named)
    return loaded_plugins()


def loaded_plugins() -> tuple[str, ...]:
    """Names of the plugin modules that were imported, in that order."""
    return tuple(_loaded)


def named_plugins() -> tuple[str, ...]:
    """Modules that were asked for by `--plugin` or `NAS_PLUGINS`; what has an entry point loads by itself."""
    return tuple(_named(os.environ.get(PLUGINS_VARIABLE, "")))


def _named(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _load(module: str, what: str, load: Callable[[], object]) -> None:
    if module in _loaded:
        return
    # Noted before the import, during which a plugin may import what loads plugins.
    _loaded.append(module)
    try:
        load()
    except Exception as error:
        _loaded.remove(module)
        raise UserError(
            f"{what} cannot be loaded ({_describe(error)}): "
            f"expected a module that registers its parts when it is imported"
        ) from error


def _describe(error: Exception) -> str:
    """Type, message and, where it is a file's, the line that raised it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if frame.filename not in (__file__, importlib.__file__)]
    return f"{text}, at {own[-1].filename}:{own[-1].lineno}" if own else text
