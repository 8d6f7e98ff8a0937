"""Which files of a folder are the weights of a model and their configuration: those that diffusers would load."""

import re
from pathlib import Path
from typing import Any

from nas.machine.reading import read_foreign_json, reading
from nas.terminal.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Name of the weights as diffusers writes them."""

_NAMES = (
    re.compile(r"diffusion_pytorch_model(?:\.([\w-]+))?\.safetensors"),
    re.compile(r"diffusion_pytorch_model\.safetensors\.index(?:\.([\w-]+))?\.json"),
)
"""A whole model, and the index of one in several shards; with the variant (fp16, ...) if it is one."""
_SHARD = re.compile(r"[.-]\d{5}-of-\d{5}\b")
_VARIANTS = ("", "fp32", "bf16", "fp16")
"""Which variant is taken where there are several; others come last."""
_ADVICE = "download the folder again, or give another one with --teacher-weights"


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder, whatever the case of its letters; the exact name first."""
    with reading(folder, _ADVICE):
        found = sorted(each for each in folder.iterdir() if each.name.lower() == name and each.is_file())
    found = [each for each in found if each.name == name] or found
    return found[0] if found else None


def find_weights(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The safetensors file or index in a folder, and a line for people if that was a choice; None if there is none."""
    with reading(folder, _ADVICE):
        files = sorted(each for each in folder.iterdir() if each.is_file())
    found: list[tuple[int, int, str, Path]] = []
    for path in files:
        for kind, pattern in enumerate(_NAMES):
            match = pattern.fullmatch(path.name.lower())
            if match and not is_shard(path):
                variant = match[1] or ""
                order = _VARIANTS.index(variant) if variant in _VARIANTS else len(_VARIANTS)
                found.append((order, kind, path.name, path))
    if not found:
        return None
    first, *others = (path for *_, path in sorted(found))
    if others:
        return first, (f"weights: {first.name} is read, {', '.join(path.name for path in others)} ignored",)
    plain = first.name.lower() in (WEIGHTS, f"{WEIGHTS}.index.json")
    return first, () if plain else (f"weights: {first.name} is the only variant in {folder}",)


def shards_of(path: Path) -> tuple[Path, ...]:
    """The files that an index names, sorted; none if the path is that of weights themselves.

    Raises:
        UserError: the index is damaged, or a shard is missing.
    """
    if not is_index(path):
        return ()
    names = _names_of(read_foreign_json(path, _ADVICE))
    # Names alone: an index may not lead to files elsewhere.
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise UserError(f"{path} is no index of weights (no weight_map from tensors to files beside it): {_ADVICE}")
    shards = tuple(path.parent / name for name in sorted(set(names)))
    with reading(path, _ADVICE):
        missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise UserError(f"{path} names {missing[0]}, which is not there ({len(missing)} of {len(shards)}): {_ADVICE}")
    return shards


def is_index(path: Path) -> bool:
    """Whether a file says by its name that it is the index of weights in several shards."""
    return re.search(r"\.safetensors\.index(\.[\w-]+)?\.json$", path.name.lower()) is not None


def is_shard(path: Path) -> bool:
    """Whether a file says by its name that it is one of several."""
    return _SHARD.search(path.name) is not None


def _names_of(index: Any) -> list[Any]:
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    return list(weight_map.values()) if isinstance(weight_map, dict) else []
