"""Which search spaces there are, by name."""

from search_spaces.space import SearchSpace

SEARCH_SPACES: dict[str, SearchSpace] = {}
"""Every registered space by its name."""

_MODULES: dict[str, str] = {}
"""Name of a space -> the module that registered it."""


def register_space(space: SearchSpace, module: str) -> None:
    """Make a search space known under its name.

    Args:
        space: the space.
        module: name of the module that it is defined in, `__name__` there; named if two spaces have one name.

    Raises:
        ValueError: another space has this name.
    """
    if space.name in SEARCH_SPACES:
        taken_by = _MODULES[space.name]
        raise ValueError(f"search space name '{space.name}' is taken by {taken_by}: {module} has to choose another")
    SEARCH_SPACES[space.name] = space
    _MODULES[space.name] = module
