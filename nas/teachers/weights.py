"""Where a teacher's weights are: a folder or file of the user's, the package, or the hub at a pinned revision."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from nas.machine.hub import fetch_files, is_cached
from nas.machine.reading import read_foreign_json, reading
from nas.teachers.layout import WEIGHTS, find_file, find_weights, is_index, is_shard, shards_of
from nas.terminal.errors import UserError

_DAMAGED = "download it again"
_ALL_SHARDS = "give the folder with all shards"
_RIGHT_CLASS = "give weights of this class, with their config.json beside them"


@dataclass(frozen=True)
class WeightFiles:
    """A safetensors file, or the index of several, and the configuration that belongs to it."""

    file: Path
    """The safetensors file or index; an empty path where only the configuration is known."""
    config: dict[str, Any]
    """The configuration: arguments of the model's class, and what the class may not know."""
    shards: tuple[Path, ...] = ()
    """Safetensors files that hold the weights; empty where `file` is the only one."""
    notes: tuple[str, ...] = ()
    """What was chosen among several files or left aside, one line each, for people."""

    @classmethod
    def none(cls, config: dict[str, Any]) -> "WeightFiles":
        """Stand-in for a model of which only the configuration is known."""
        return cls(Path(), config)

    @property
    def known(self) -> bool:
        """Whether there are weights to the configuration."""
        return self.file != Path()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every safetensors file."""
        return self.shards or (self.file,)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all files and of the configuration; UserError if they cannot be read."""
        digests = [self._digest(file) for file in self.files]
        digest = digests[0]
        if len(digests) > 1:
            digest = hashlib.sha256(b"".join(each.digest() for each in digests))
        digest.update(repr(sorted(self.config.items())).encode())
        return digest.hexdigest()

    def _digest(self, path: Path) -> "hashlib._Hash":
        with reading(path, _DAMAGED), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    def check(self, model: nn.Module) -> None:
        """See from the headers of the files, without reading the weights, that they are those of the model.

        Raises:
            UserError: a file is not a complete safetensors file, or their tensors are not those of the model.
        """
        wanted = model.state_dict()
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        for path in self.files:
            with _opened(path) as file:
                tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                twice = sorted(found.keys() & tensors.keys())
                if twice:
                    raise UserError(f"{path} holds {twice[0]}, as another shard does: {_DAMAGED}")
                found |= {name: (tuple(each.get_shape()), each.get_dtype()) for name, each in tensors.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        wrong = sorted(
            name for name in shapes.keys() | found.keys() if name not in found or shapes.get(name) != found[name][0]
        )
        if wrong:
            name = wrong[0]
            first = found[name][0] if name in found else "nothing"
            raise UserError(
                f"{self.file} does not fit {type(model).__name__}: {len(wrong)} of {len(wanted)} tensors "
                f"differ, first {name}: found {first}, expected {shapes.get(name, 'nothing')}: "
                f"{_ALL_SHARDS if is_shard(self.file) else _RIGHT_CLASS}"
            )
        for name, tensor in wanted.items():
            if tensor.is_floating_point() and not found[name][1].lstrip("B").startswith("F"):
                raise UserError(f"{self.file}: {name} holds {found[name][1]}, not floats: give weights not quantized")

    def load_into(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Give a model on the meta device these weights in this precision; UserError as `check`."""
        self.check(model)
        state: dict[str, torch.Tensor] = {}
        for path in self.files:
            with _opened(path) as file:
                state |= {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(state, assign=True)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, float32; UserError if it is not there."""
        for path in self.files:
            with _opened(path) as file:
                if name in file.keys():  # noqa: SIM118
                    found: torch.Tensor = file.get_tensor(name).float()
                    return found
        raise UserError(f"{self.file} has no tensor '{name}': give the weights as they were published")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with reading(path, _DAMAGED), safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path} is not a complete safetensors file ({error}): {_DAMAGED}") from error


def local_weights(path: Path, class_name: str, config: dict[str, Any]) -> WeightFiles:
    """Weights of the user's.

    Args:
        path: a folder in diffusers' layout, one with such a folder named `vae` in it, or a safetensors file or the
            index of several (with a config.json beside it, or of the published configuration).
        class_name: diffusers class that they have to be for.
        config: the published configuration, for a file without one.

    Raises:
        UserError: nothing there, or a configuration of another class.
    """
    with reading(path, "expected --teacher-weights to be a diffusers folder or a .safetensors file"):
        if path.is_file():
            if path.suffix.lower() != ".safetensors" and not is_index(path):
                raise UserError(
                    f"{path} is not a .safetensors file: pickled checkpoints are not loaded, convert it first"
                )
            beside = find_file(path.parent, "config.json")
            return WeightFiles(path, _read_config(beside, class_name) if beside else config, shards_of(path))
        if not path.exists():
            raise UserError(
                f"--teacher-weights {path} does not exist: expected a diffusers folder or a .safetensors file"
            )
        for folder in (path, path / "vae"):
            if folder.is_dir() and (found := _in_folder(folder, class_name)):
                return found
        pickled = any(path.glob("*.bin")) or any(path.glob("vae/*.bin"))
    raise UserError(
        f"no config.json with {WEIGHTS} in {path} or {path / 'vae'}: expected a folder in diffusers' layout"
        f"{' (pickled checkpoints, .bin, are not loaded: convert them first)' if pickled else ''}"
    )


def _in_folder(folder: Path, class_name: str) -> WeightFiles | None:
    weights, config = find_weights(folder), find_file(folder, "config.json")
    if weights is None or config is None:
        return None
    file, notes = weights
    return WeightFiles(file, _read_config(config, class_name), shards_of(file), notes)


def weights_cached(repository: str, revision: str, subfolder: str) -> bool:
    """Whether published weights are on this machine; the hub is not asked."""
    return is_cached(repository, revision, _names(subfolder))


def hub_weights(repository: str, revision: str, subfolder: str, class_name: str, teacher: str) -> WeightFiles:
    """Published weights, from the local cache or the hub, at a pinned revision.

    Raises:
        UserError: they are not cached and the hub cannot be reached.
    """
    config, file = fetch_files(
        repository,
        revision,
        _names(subfolder),
        what=f"the weights of '{teacher}' ({repository})",
        instead="give a local copy with --teacher-weights PATH, or use --teacher wan-tiny",
    )
    return WeightFiles(file, _read_config(config, class_name))


def _names(subfolder: str) -> tuple[str, str]:
    return f"{subfolder}/config.json", f"{subfolder}/{WEIGHTS}"


def _read_config(path: Path, class_name: str) -> dict[str, Any]:
    config = read_foreign_json(path, "restore the one that was published with the weights")
    # diffusers, too, takes a configuration that does not say what it is for to be for the class that is asked for.
    found = config.get("_class_name", class_name) if isinstance(config, dict) else None
    if found != class_name:
        raise UserError(
            f"{path} is for {found or 'no known class'}, expected {class_name}: use another --teacher or weights"
        )
    return {key: value for key, value in config.items() if not key.startswith("_")}
