"""Which teachers there are, and opening one. A family is one file in this folder that calls `register_release`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nas.teachers.teacher import Teacher
from nas.teachers.weights import WeightFiles, hub_weights, local_weights, weights_cached
from nas.terminal.errors import UserError, unknown_name
from search_spaces import LatentSpec

Loader = Callable[[Path | None, str | torch.device], Teacher]


@dataclass(frozen=True)
class Release:
    """Published weights of a teacher, and what is known of it without them."""

    name: str
    """What it is selected by."""
    repository: str
    """Repository of the weights on the hub; empty for the embedded teacher."""
    revision: str
    """Commit that downloads are pinned to; empty: none is known, so its weights have to be given by path."""
    licence: str
    """Licence of the weights."""
    latents: LatentSpec
    """Geometry of the latents as published, without statistics."""
    decoder_parameters: int
    """Number of parameters of the published decoder."""
    subfolder: str = "vae"
    """Folder of the repository that holds the model, in diffusers' layout."""
    embedded: Path | None = None
    """Folder with the weights, for a teacher that comes with this package."""
    config: dict[str, Any] = field(default_factory=dict)
    """What the published configuration differs in from the default of its class."""
    note: str = ""
    """The same for people, and what else is special about it."""

    @property
    def source(self) -> str:
        """For people: where the published weights are."""
        if self.embedded is not None:
            return "embedded"
        return f"{self.repository}@{self.revision[:7]}" if self.revision else self.repository

    def cached(self) -> bool:
        """Whether the published weights are on this machine."""
        return self.embedded is not None or weights_cached(self.repository, self.revision, self.subfolder)

    def weights(self, path: Path | None, class_name: str) -> tuple[WeightFiles, str]:
        """The weights in `path`, or else the published ones, and where they are from."""
        if path is not None:
            return local_weights(path, class_name, self.config), str(path)
        if self.embedded is not None:
            return local_weights(self.embedded, class_name, self.config), self.source
        if not self.revision:
            raise UserError(
                f"no revision of {self.repository} is pinned for '{self.name}': download its VAE and give the folder "
                f"with --teacher-weights PATH"
            )
        return hub_weights(self.repository, self.revision, self.subfolder, class_name, self.name), self.source


_LOADERS: dict[str, Loader] = {}
_RELEASES: dict[str, tuple[Release, type[Teacher]]] = {}


def register_release(release: Release, teacher: type[Teacher]) -> None:
    """Make a published teacher known: `teacher` is the class that speaks to its model."""

    def load(path: Path | None, device: str | torch.device) -> Teacher:
        weights, source = release.weights(path, teacher.class_name)
        return teacher(release.name, source, release.licence, weights, device)

    register_teacher(release.name, load)
    _RELEASES[release.name] = release, teacher


def register_teacher(name: str, load: Loader) -> None:
    """Make a teacher known: `load(weights, device)` opens it, with the published weights if `weights` is None."""
    if name in _LOADERS:
        raise ValueError(f"teacher name '{name}' is taken")
    _LOADERS[name] = load


def load_teacher(name: str, weights: Path | None = None, device: str | torch.device = "cpu") -> Teacher:
    """Open a teacher.

    Args:
        name: as in `list_teachers()`.
        weights: diffusers folder (with or without a `vae` subfolder) or safetensors file; None: the published ones.
        device: where it computes.

    Raises:
        UserError: unknown name, weights that are not there or do not fit, hub not reachable and nothing cached.
    """
    if name not in _LOADERS:
        raise unknown_name("teacher", name, _LOADERS)
    teacher = _LOADERS[name](weights, device)
    # Only the header of the file is read, so that wrong weights are refused before anything is begun.
    teacher.check()
    return teacher


def list_teachers() -> list[str]:
    """Registered names, sorted."""
    return sorted(_LOADERS)


def list_releases() -> list[Release]:
    """Every published teacher, by name."""
    return [_RELEASES[name][0] for name in sorted(_RELEASES)]


def unpublished_teachers() -> list[str]:
    """Registered names of which no published weights are known, sorted."""
    return sorted(_LOADERS.keys() - _RELEASES.keys())


def without_weights(release: Release) -> Teacher:
    """A published teacher of full size that only has a skeleton: for operations and shapes."""
    _, teacher = _RELEASES[release.name]
    return teacher(release.name, release.source, release.licence, WeightFiles.none(release.config), "meta")


def published_repository(name: str) -> str:
    """Repository of a teacher's published weights on the hub; empty where there is none."""
    return _RELEASES[name][0].repository if name in _RELEASES else ""


def published_latents(name: str) -> LatentSpec | None:
    """Geometry of a teacher's latents before anything is loaded; None if it is not known without its weights.

    Raises:
        UserError: unknown name.
    """
    if name not in _LOADERS:
        raise unknown_name("teacher", name, _LOADERS)
    return _RELEASES[name][0].latents if name in _RELEASES else None
