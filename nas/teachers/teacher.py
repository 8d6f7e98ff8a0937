"""Teacher: one vocabulary over unmodified video autoencoders."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.errors import UserError, unknown_name
from nas.teachers.weights import WeightFiles
from nas.torchvision_operators import import_torchvision
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

    class_name: ClassVar[str]
    """The model's class in diffusers."""
    head: ClassVar[tuple[str, ...]] = ("norm_out", "conv_act", "conv_out")
    """Modules of the decoder that run after the last tap; features need none of them."""
    cached: ClassVar[frozenset[str]] = frozenset()
    """Modules of the decoder (a list stands for its members) that return their output and a cache."""

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
    def tap_names(self) -> tuple[str, ...]:
        """Names of modules of the decoder, in the order in which they run; the paper aligns the first two."""
        up_blocks = len(list(self.skeleton.get_submodule("decoder.up_blocks").children()))
        return ("mid_block", *(f"up_blocks.{index}" for index in range(up_blocks)))

    def build(self) -> nn.Module:
        """A fresh model of the teacher's class and configuration, on the current default device, without weights."""
        import_torchvision()
        import diffusers

        model: nn.Module = getattr(diffusers, self.class_name)(**self.weights.config)
        return model

    def run_encoder(self, model: Any, video: Tensor) -> Tensor:
        """Video -> latents (the mode, never a sample)."""
        latents: Tensor = model.encode(video).latent_dist.mode()
        return latents

    def run_decoder(self, model: Any, latents: Tensor) -> Tensor:
        """Latents -> frames, the whole clip."""
        frames: Tensor = model.decode(latents, return_dict=False)[0]
        return frames

    def on_grid(self, feature: Tensor, num_latents: int) -> Tensor:
        """A tapped feature `(b, c, t, h, w)` without frames that the model only drops at its end."""
        return feature

    def find_tap(self, model: nn.Module, name: str) -> nn.Module:
        """The module of a tap."""
        decoder: nn.Module = model.get_submodule("decoder")
        return decoder.get_submodule(name)

    @cached_property
    def model(self) -> nn.Module:
        """The model with its weights, float32, frozen."""
        from accelerate import init_empty_weights

        # Buffers that no file holds (wavelets, for example) are computed, parameters are not.
        with init_empty_weights(include_buffers=False):
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
            latents = torch.empty(1, spec.channels, 3, 2, 2, device="meta")
            found = tuple(self.run_decoder(self.skeleton, latents).shape)
        except _CONFIG_ERRORS as error:
            raise self._unfit_config(error) from error
        expected = (1, 3, spec.num_frames(3), 2 * spec.spatial, 2 * spec.spatial)
        if found != expected:
            raise self._unfit_config(f"latents {tuple(latents.shape)} become frames {found}, by it {expected}")

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

    @torch.no_grad()
    def features(self, latents: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Features `(b, c, t, h, w)` at these taps; what the decoder does after the last of them is left out."""
        with self.stopping_after(self.model, taps):
            return self._tapped(self.model, latents.to(self.device), taps)[1]

    @contextmanager
    def stopping_after(self, model: nn.Module, taps: Sequence[str]) -> Iterator[None]:
        """While it lasts, modules of the decoder after the last of these taps only hand their input on.

        What comes out is no video. The decode itself goes on, which models that decode in pieces need.
        """
        order = [*self.tap_names, *self.head]
        last = max(order.index(tap) for tap in self._known(taps))
        decoder = model.get_submodule("decoder")
        originals: list[tuple[nn.Module, str, nn.Module]] = []
        try:
            for name in order[last + 1 :]:
                path, _, leaf = name.rpartition(".")
                parent = decoder.get_submodule(path)
                originals.append((parent, leaf, parent.get_submodule(leaf)))
                setattr(parent, leaf, _HandOn(with_cache=name.split(".")[0] in self.cached))
            yield
        finally:
            for parent, leaf, module in originals:
                setattr(parent, leaf, module)

    def _known(self, taps: Sequence[str]) -> Sequence[str]:
        unknown = sorted(set(taps) - set(self.tap_names))
        if unknown:
            raise unknown_name(f"tap of {self.name}", unknown[0], self.tap_names)
        return taps

    def _tapped(self, model: nn.Module, latents: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        # A model that decodes in pieces passes a tap once per piece; the pieces come in the order of time.
        pieces: dict[str, list[Tensor]] = {name: [] for name in self._known(taps)}

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, inputs, output: pieces[name].append(
                output[0] if isinstance(output, tuple) else output
            )

        handles = [self.find_tap(model, name).register_forward_hook(keep(name)) for name in taps]
        try:
            frames = self.run_decoder(model, latents)
        finally:
            for handle in handles:
                handle.remove()
        num_latents = latents.shape[2]
        return frames, {name: self.on_grid(torch.cat(found, dim=2), num_latents) for name, found in pieces.items()}


class _HandOn(nn.Module):
    """In place of a module whose work nobody wants."""

    def __init__(self, *, with_cache: bool) -> None:
        super().__init__()
        self._with_cache = with_cache

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        """Its first input, and no cache."""
        return (x, None) if self._with_cache else x


class _Decoding(nn.Module):
    """A teacher's decoding as a module that can be copied and moved."""

    def __init__(self, teacher: Teacher, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._run = teacher.run_decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Latents -> frames."""
        return self._run(self.model, latents)
