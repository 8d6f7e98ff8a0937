"""Looking into a decoder, and leaving out its end: hooks and stand-ins, for as long as a context lasts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def recorded_outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """What these modules put out, by name, in the order of their calls; of several outputs the first."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in modules}

    def keep(name: str, output: Any) -> None:
        outputs[name].append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        for name, module in modules.items():
            handle = module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            hooks.callback(handle.remove)
        yield outputs


@contextmanager
def skipped_modules(parent: nn.Module, names: Sequence[str], cached: frozenset[str]) -> Iterator[None]:
    """While it lasts these modules of `parent` only hand their first input on.

    Args:
        parent: what they are found in.
        names: which.
        cached: those (a list stands for its members) that return a cache beside their output.
    """
    originals: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for name in names:
            path, _, leaf = name.rpartition(".")
            owner = parent.get_submodule(path)
            originals.append((owner, leaf, owner.get_submodule(leaf)))
            setattr(owner, leaf, _HandOn(with_cache=name.split(".")[0] in cached))
        yield
    finally:
        for owner, leaf, module in originals:
            setattr(owner, leaf, module)


class _HandOn(nn.Module):
    """In place of a module whose work nobody wants."""

    def __init__(self, *, with_cache: bool) -> None:
        super().__init__()
        self._with_cache = with_cache

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        """Its first input, and no cache."""
        return (x, None) if self._with_cache else x
