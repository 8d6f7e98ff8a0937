"""Which stage of a decoder is running: by hooks on the parts of named groups of modules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def stage_modules(decoder: nn.Module) -> dict[str, nn.Module]:
    """The groups that costs are reported for, by name.

    A decoder with `stage_modules()` says itself. For any other module they are its direct children, the members of
    a module list each on its own (`up_blocks.0`, ...); a module without children is one group named after its class.
    """
    offered = getattr(decoder, "stage_modules", None)
    if callable(offered):
        return dict(offered())
    groups: dict[str, nn.Module] = {}
    for name, child in decoder.named_children():
        if isinstance(child, nn.ModuleList):
            groups.update({f"{name}.{index}": member for index, member in enumerate(child)})
        else:
            groups[name] = child
    return groups or {type(decoder).__name__: decoder}


@contextmanager
def watch_stages(groups: dict[str, nn.Module], on_stage: Callable[[str], None]) -> Iterator[None]:
    """Call `on_stage(name)` whenever a module inside a group starts.

    What runs between the groups (a change of layout, a trimmed frame) belongs to the group that ran last, so time or
    operations counted towards the last name add up to the whole.
    """

    def announce(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any) -> None:
            on_stage(name)

        return hook

    handles = []
    for name, group in groups.items():
        # A group may itself never be called (a stage whose parts the decoder runs one by one): hook everything in it.
        handles += [part.register_forward_pre_hook(announce(name)) for part in group.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
