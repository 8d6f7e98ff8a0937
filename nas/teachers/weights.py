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

from nas.machine.files import read_json
from nas.machine.hub import fetch_files, is_cached
from nas.terminal.errors import UserError

_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class WeightFiles:
    """A safetensors file and the configuration that belongs to it."""

    file: Path
    """The safetensors file; an empty path where only the configuration is known."""
    config: dict[str, Any]
    """Arguments of the model's class."""

    @classmethod
    def none(cls, config: dict[str, Any]) -> "WeightFiles":
        """Stand-in for a model of which only the configuration is known."""
        return cls(Path(), config)

    @property
    def known(self) -> bool:
        """Whether there are weights to the configuration."""
        return self.file != Path()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file and of the configuration."""
        with self.file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(repr(sorted(self.config.items())).encode())
        return digest.hexdigest()

    def check(self, model: nn.Module) -> None:
        """See from the header of the file, without reading the weights, that they are those of the model.

        Raises:
            UserError: the file is not a complete safetensors file, or its tensors are not those of the model.
        """
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        with self._opened() as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if wrong:
            name = wrong[0]
            shapes = f"found {found.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
            raise UserError(
                f"{self.file} does not fit {type(model).__name__}: {len(wrong)} of {len(wanted)} tensors "
                f"differ, first {name}: {shapes}: give weights of this class, with their config.json beside them"
            )

    def load_into(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Give a model on the meta device these weights in this precision; UserError as `check`."""
        self.check(model)
        with self._opened() as file:
            state = {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(state, assign=True)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor of the file, float32; UserError if it is not there."""
        with self._opened() as file:
            if name not in file.keys():  # noqa: SIM118
                raise UserError(f"{self.file} has no tensor '{name}': give the weights as they were published")
            found: torch.Tensor = file.get_tensor(name).float()
        return found

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with safe_open(self.file, framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.file} is not a complete safetensors file ({error}): download it again") from error


def local_weights(path: Path, class_name: str, config: dict[str, Any]) -> WeightFiles:
    """Weights of the user's.

    Args:
        path: a folder in diffusers' layout, one with such a folder named `vae` in it, or a safetensors file (with a
            config.json beside it, or of the published configuration).
        class_name: diffusers class that they have to be for.
        config: the published configuration, for a file without one.

    Raises:
        UserError: nothing there, or a configuration of another class.
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UserError(f"{path} is not a .safetensors file: pickled checkpoints are not loaded, convert it first")
        beside = path.with_name("config.json")
        return WeightFiles(path, _read_config(beside, class_name) if beside.exists() else config)
    for folder in (path, path / "vae"):
        if (folder / _WEIGHTS).is_file() and (folder / "config.json").is_file():
            return WeightFiles(folder / _WEIGHTS, _read_config(folder / "config.json", class_name))
    if not path.exists():
        raise UserError(f"--teacher-weights {path} does not exist: expected a diffusers folder or a .safetensors file")
    raise UserError(
        f"no config.json with {_WEIGHTS} in {path} or {path / 'vae'}: expected a folder in diffusers' layout"
    )


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
    return f"{subfolder}/config.json", f"{subfolder}/{_WEIGHTS}"


def _read_config(path: Path, class_name: str) -> dict[str, Any]:
    config = read_json(path)
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found != class_name:
        raise UserError(
            f"{path} is for {found or 'no known class'}, expected {class_name}: use another --teacher or weights"
        )
    return {key: value for key, value in config.items() if not key.startswith("_")}
