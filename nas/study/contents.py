"""What the numbers of a run depend on, by content: what has changed since is said, and never mixed silently."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import blocks.layers
from blocks import get_block
from nas.data.clips import Clip
from nas.data.settings import SPLITS
from nas.data.splits import ClipSet
from nas.distillation.preparation import perceptual_off
from nas.distillation.recipes import Recipe
from nas.latency import Workload
from nas.latency.devices import HOST, LatencyDevice, PredictedDevice
from nas.terminal.errors import unknown_name
from search_spaces import SEARCH_SPACES, SearchSpace

Contents = Mapping[str, Mapping[str, str]]
"""Kind of thing -> its name -> a digest of its content."""


_FOREIGN = ("builtins", "torch", "typing", "abc")
"""Packages of base classes whose version is recorded, not their source."""


def contents_of_space(name: str) -> dict[str, dict[str, str]]:
    """The choices of a space, and the source and the choices of every part that it offers.

    Raises:
        UserError: there is no such space.
    """
    if name not in SEARCH_SPACES:
        raise unknown_name("search space", name, SEARCH_SPACES)
    space = SEARCH_SPACES[name]
    layers = sorted(Path(str(blocks.layers.__file__)).parent.glob("*.py"))
    parts = {name: _part_digest(name) for name in sorted(_offered(space))}
    return {
        "space": {space.name: _digest(asdict(space))},
        "part": parts | {"blocks/layers": _digest([_file_digest(path) for path in layers])},
    }


def contents_of_devices(devices: Iterable[LatencyDevice], workload: Workload) -> dict[str, dict[str, str]]:
    """The profiles that latency is predicted from, and what this machine is; nothing of a device that is elsewhere."""
    found: dict[str, str] = {}
    for device in devices:
        if isinstance(device, PredictedDevice):
            found[device.name] = _digest(asdict(device.profile))
        elif device.name == HOST:
            found[device.name] = device.describe(workload)
    return {"device": found}


def contents_of_teacher(name: str, weights_hash: str) -> dict[str, dict[str, str]]:
    """The weights of the teacher."""
    return {"weights of teacher": {name: weights_hash}}


def contents_of_clips(clips: ClipSet) -> dict[str, dict[str, str]]:
    """Every clip with its split."""
    pairs = [(split, clip) for split in SPLITS for clip in clips.split(split)]
    return {"clip": {_place(clip, clips.origin): f"{split} {clip.identity}" for split, clip in pairs}}


def contents_of_recipe(recipe: Recipe, steps: int, seed: int) -> dict[str, dict[str, str]]:
    """How candidates are trained, which depends on whether there is a GPU, and whether LPIPS can be computed."""
    settings = recipe.distillation(steps, seed)
    lpips = "off" if perceptual_off(settings) else "on"
    return {"recipe": {"short distillation": _digest([recipe.short.identity(), asdict(settings)]), "LPIPS": lpips}}


def changes(recorded: Contents, found: Contents) -> list[str]:
    """What is not as it was, of the kinds in `found`, in words: "clip a.mp4 is another", "clip b.mp4 is new"."""
    words = []
    for kind, now in found.items():
        before = recorded.get(kind, {})
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                words.append(f"{kind} {name} {_change(before.get(name), now.get(name))}")
    return words


def in_one_line(words: list[str]) -> str:
    """The first changes, and how many more there are."""
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more


def _change(before: str | None, now: str | None) -> str:
    if before is None:
        return "is new"
    if now is None:
        return "is gone"
    moved = before.split()[1:] == now.split()[1:] != []
    return f"was for {before.split()[0]} and is for {now.split()[0]}" if moved else "has changed"


def _offered(space: SearchSpace) -> set[str]:
    names = {name for level in space.levels for name in level.blocks}
    return names.union(space.stems, space.upsamplers, space.heads, space.plain_heads, space.middles, space.shortcuts)


def _part_digest(name: str) -> str:
    part = get_block(name)
    # A part may be made from another: what it inherits is part of it.
    sources = (inspect.getsourcefile(each) for each in part.__mro__ if each.__module__.split(".")[0] not in _FOREIGN)
    files = sorted({Path(source) for source in sources if source is not None})
    return _digest([part.Config.choices(), *map(_file_digest, files)])


def _place(clip: Clip, origin: str) -> str:
    """Where a clip is in its folder or from its list on, with the frames if it is a part of a file."""
    folder = clip.path.parent
    if origin == "embedded":
        return f"{folder.name}/{clip.name}"
    root = Path(origin) if Path(origin).is_dir() else Path(origin).parent
    return ((folder.relative_to(root) if folder.is_relative_to(root) else folder) / clip.name).as_posix()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
