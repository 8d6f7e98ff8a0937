"""Teacher: one vocabulary over unmodified video autoencoders, and the registry of them.

A family of teachers is one file in this folder that calls `register_teacher`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import UserError, unknown_name
from nas.teachers.weights import WeightFiles
from search_spaces import LatentSpec

_CONFIG_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, NameError, RuntimeError)
"""What the classes of diffusers raise for a configuration that makes no sense."""


@dataclass(frozen=True)
class Tap:
    """A place in the teacher's decoder whose features a student may be aligned with."""

    channels: int
    temporal: int
    """Frames per latent frame (the leading frame aside)."""
    spatial: int
    """Height and width relative to the latents."""


class Teacher(ABC):
    """A frozen video autoencoder. The model is loaded at the first use of its weights, not before.

    Videos are `(b, 3, t, h, w)` in [-1, 1], latents `(b, c, t, h, w)` exactly as the model's `decode` takes them.
    """

    def __init__(self, name: str, source: str, licence: str, weights: WeightFiles, device: str | torch.device) -> None:
        self.name = name
        self.source = source
        """Where the weights are from: hub id and revision, "embedded", or a path."""
        self.licence = licence
        """Licence of the weights."""
        self.weights = weights
        self.device = torch.device(device)

    @property
    @abstractmethod
    def spec(self) -> LatentSpec:
        """Geometry and statistics of the latents."""

    @property
    @abstractmethod
    def tap_names(self) -> tuple[str, ...]:
        """Names of modules of the decoder, in the order in which they run; the paper aligns the first two."""

    @abstractmethod
    def build(self) -> nn.Module:
        """A fresh model of the teacher's class and configuration, on the current default device, without weights."""

    @abstractmethod
    def run_encoder(self, model: nn.Module, video: Tensor) -> Tensor:
        """Video -> latents (the mode, never a sample)."""

    @abstractmethod
    def run_decoder(self, model: nn.Module, latents: Tensor) -> Tensor:
        """Latents -> frames, the whole clip."""

    def find_tap(self, model: nn.Module, name: str) -> nn.Module:
        """The module of a tap."""
        decoder: nn.Module = model.get_submodule("decoder")
        return decoder.get_submodule(name)

    @cached_property
    def model(self) -> nn.Module:
        """The model with its weights, float32, frozen."""
        with torch.device("meta"):
            model = self.build()
        self.weights.load_into(model)
        return model.to(self.device).eval().requires_grad_(False)

    @cached_property
    def skeleton(self) -> nn.Module:
        """The model without weights, on the meta device: for shapes, parameters and operations.

        Raises:
            UserError: the configuration is not one of the class.
        """
        try:
            with torch.device("meta"):
                return self.build().eval().requires_grad_(False)
        except _CONFIG_ERRORS as error:
            raise self._unfit_config(error) from error

    def check(self) -> None:
        """See without reading the weights that they, their configuration and this class fit together.

        Raises:
            UserError: they do not, or the frames have another size than the configuration says.
        """
        self.weights.check(self.skeleton)
        try:
            spec = self.spec
            latents = torch.empty(1, spec.channels, 3, 1, 1, device="meta")
            found = tuple(self.run_decoder(self.skeleton, latents).shape)
        except _CONFIG_ERRORS as error:
            raise self._unfit_config(error) from error
        expected = (1, 3, spec.num_frames(3), spec.spatial, spec.spatial)
        if found != expected:
            raise self._unfit_config(f"3 latents of one pixel become frames {found}, it says {expected}")

    def _unfit_config(self, reason: object) -> UserError:
        return UserError(
            f"the config.json of {self.weights.file} does not fit {self.name} ({reason}): use the one that "
            f"was published with the weights"
        )

    def decoding(self) -> nn.Module:
        """A module `forward(latents) -> frames` with the weights: for latency."""
        return _Decoding(self, self.model)

    def skeleton_decoding(self) -> nn.Module:
        """A module `forward(latents) -> frames` on the meta device: for operations and predicted latency."""
        return _Decoding(self, self.skeleton)

    @cached_property
    def decoder_parameters(self) -> int:
        """Parameters of the decoder."""
        return sum(parameter.numel() for parameter in self.skeleton.get_submodule("decoder").parameters())

    @cached_property
    def taps(self) -> dict[str, Tap]:
        """Every tap with its channels and grid, read off a run without weights."""
        latents = torch.empty(1, self.spec.channels, 3, 2, 2, device="meta")
        leading = int(self.spec.drops_leading(3))
        _, features = self._tapped(self.skeleton, latents, self.tap_names)
        return {
            name: Tap(channels=shape[1], temporal=(shape[2] - leading) // (3 - leading), spatial=shape[4] // 2)
            for name, shape in ((name, feature.shape) for name, feature in features.items())
        }

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights, read from the file: the model is not loaded for it."""
        return self.weights.digest

    def describe(self) -> str:
        """One line for people."""
        kind = type(self.skeleton).__name__
        size = f"{self.spec.temporal}x{self.spec.spatial}x{self.spec.spatial}"
        millions = self.decoder_parameters / 1e6
        return f"{self.name}: {kind}, {self.spec.channels} channels, {size}, decoder {millions:.2f} M parameters"

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Video in [-1, 1] -> latents (the mode). ValueError if the size is not on the teacher's grid."""
        self.spec.latent_shape(*video.shape[2:])
        return self.run_encoder(self.model, video.to(self.device))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> frames in [-1, 1]."""
        return self.run_decoder(self.model, latents.to(self.device)).clamp(-1, 1)

    @torch.no_grad()
    def decode_with_features(self, latents: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames in [-1, 1] and the features `(b, c, t, h, w)` at these taps, in one pass."""
        frames, features = self._tapped(self.model, latents.to(self.device), taps)
        return frames.clamp(-1, 1), features

    def features(self, latents: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Features `(b, c, t, h, w)` at these taps."""
        return self.decode_with_features(latents, taps)[1]

    def _tapped(self, model: nn.Module, latents: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        unknown = sorted(set(taps) - set(self.tap_names))
        if unknown:
            raise unknown_name(f"tap of {self.name}", unknown[0], self.tap_names)
        # A model that decodes in pieces passes a tap once per piece; the pieces come in the order of time.
        pieces: dict[str, list[Tensor]] = {name: [] for name in taps}

        def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, inputs, output: pieces[name].append(output)

        handles = [self.find_tap(model, name).register_forward_hook(keep(name)) for name in taps]
        try:
            frames = self.run_decoder(model, latents)
        finally:
            for handle in handles:
                handle.remove()
        return frames, {name: torch.cat(found, dim=2) for name, found in pieces.items()}


class _Decoding(nn.Module):
    """A teacher's decoding as a module that can be copied and moved."""

    def __init__(self, teacher: Teacher, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._run = teacher.run_decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Latents -> frames."""
        return self._run(self.model, latents)


Loader = Callable[[Path | None, str | torch.device], Teacher]
_LOADERS: dict[str, Loader] = {}


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
