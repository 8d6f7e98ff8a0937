"""Teacher: one vocabulary over unmodified video autoencoders."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.machine.fast_convolutions import fast_convolutions
from nas.machine.memory import peak_bytes
from nas.teachers.frozen_model import CONFIG_ERRORS, FrozenModel
from nas.teachers.truncation import recorded_outputs, skipped_modules
from nas.terminal.errors import UserError, unknown_name
from search_spaces import LatentSpec


@dataclass(frozen=True)
class Tap:
    """A place in the teacher's decoder whose features a student may be aligned with."""

    channels: int
    """Channels of the features."""
    temporal: int
    """Frames per latent frame (the leading frame aside)."""
    spatial: int
    """Height and width relative to the latents."""


class Teacher(FrozenModel, ABC):
    """A frozen video autoencoder. The model is loaded at the first use of its weights, not before.

    Videos are `(b, 3, t, h, w)` in [-1, 1], latents `(b, c, t, h, w)` exactly as the model's `decode` takes them.
    """

    head: ClassVar[tuple[str, ...]] = ("norm_out", "conv_act", "conv_out")
    """Modules of the decoder that run after the last tap; features need none of them."""
    cached: ClassVar[frozenset[str]] = frozenset()
    """Modules of the decoder (a list stands for its members) that return their output and a cache."""
    least_latents: ClassVar[int] = 1
    """Latent frames that the frame rule holds from."""
    streams: ClassVar[bool] = False
    """Whether `encode_chunk` and `decode_chunk` are there."""

    @property
    @abstractmethod
    def spec(self) -> LatentSpec:
        """Geometry and statistics of the latents."""

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of modules of the decoder, in the order in which they run; the paper aligns the first two."""
        up_blocks = len(list(self.skeleton.get_submodule("decoder.up_blocks").children()))
        return ("mid_block", *(f"up_blocks.{index}" for index in range(up_blocks)))

    def run_encoder(self, model: Any, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Video -> latents: the mode of the encoder's distribution, or with a generator a sample of it."""
        distribution = model.encode(video).latent_dist
        latents: Tensor = distribution.mode() if generator is None else distribution.sample(generator)
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
        except CONFIG_ERRORS as error:
            raise self.unfit_config(error) from error
        expected = (1, 3, spec.num_frames(3), 2 * spec.spatial, 2 * spec.spatial)
        if found != expected:
            raise self.unfit_config(f"latents {tuple(latents.shape)} become frames {found}, by it {expected}")

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

    def describe(self) -> str:
        """One line for people."""
        kind = type(self.skeleton).__name__
        size = f"{self.spec.temporal}x{self.spec.spatial}x{self.spec.spatial}"
        millions = self.decoder_parameters / 1e6
        return f"{self.name}: {kind}, {self.spec.channels} channels, {size}, decoder {millions:.2f} M parameters"

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape `(c, t, h, w)` of the latents of such a video; ValueError with the nearest sizes if it has none."""
        shape = self.spec.latent_shape(num_frames, height, width)
        self._check_count(shape[1])
        return shape

    def memory(self, num_frames: int, height: int, width: int, taps: Sequence[str] = (), *, frames: bool = True) -> int:
        """Bytes that encoding and decoding a clip of this size take at most, estimated from the sizes of all tensors.

        Weights are part of it, the program itself is not. Without `frames` it decodes as `features` does.
        """
        video = torch.empty(1, 3, num_frames, height, width, device="meta")
        latents = torch.empty(1, *self.latent_shape(num_frames, height, width), device="meta")
        encoding = peak_bytes(lambda: self.run_encoder(self.skeleton, video))
        with self.stopping_after(self.skeleton, taps) if taps and not frames else nullcontext():
            decoding = peak_bytes(lambda: self._tapped(self.skeleton, latents, taps)) if taps or frames else 0
        weights = sum(tensor.nbytes for tensor in self.skeleton.parameters())
        return (weights + video.nbytes + max(encoding, decoding)) * self.dtype.itemsize // torch.float32.itemsize

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Video in [-1, 1] -> latents, float32. ValueError if the size is not on the teacher's grid.

        They are the mode of the encoder's distribution, or with a generator (on the CPU, for the same noise on every
        device) a sample of it. An encoder that gives latents rather than a distribution (video-dc-ae, cosmos) has no
        noise: the latents are the same ones with a generator and without.
        """
        self.latent_shape(*video.shape[2:])
        run = self.run_encoder if generator is None else partial(self.run_encoder, generator=generator)
        with fast_convolutions(self.device):
            return _joined([run(self.model, clip).float() for clip in self._clips(video)])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> frames in [-1, 1], float32. ValueError if they are not latents of this teacher."""
        return self.decode_with_features(latents, ())[0]

    def encode_chunk(self, video: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As `encode`, of the next frames of one clip and with the state that the frames before left (None to start).

        The first chunk has a number of frames that the frame rule gives, each later one a multiple of the compression.
        """
        raise NotImplementedError(f"{self.name} encodes whole clips only")

    def decode_chunk(self, latents: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As `decode`, of the next latents of one clip and with the state that those before left (None to start)."""
        raise NotImplementedError(f"{self.name} decodes whole clips only")

    def decode_with_features(self, latents: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames in [-1, 1] and the features `(b, c, t, h, w)` at these taps, in one pass, float32."""
        self._check_latents(latents)
        with fast_convolutions(self.device):
            found = [self._tapped(self.model, clip, taps) for clip in self._clips(latents)]
        features = {name: _joined([each[name].float() for _, each in found]) for name in taps}
        return _joined([frames.float().clamp(-1, 1) for frames, _ in found]), features

    def features(self, latents: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Features `(b, c, t, h, w)` at these taps; what the decoder does after the last of them is left out."""
        if not taps:
            return {}
        with self.stopping_after(self.model, taps):
            return self.decode_with_features(latents, taps)[1]

    @contextmanager
    def stopping_after(self, model: nn.Module, taps: Sequence[str]) -> Iterator[None]:
        """While it lasts, modules of the decoder after the last of these taps only hand their input on.

        What comes out is no video. The decode itself goes on, which models that decode in pieces need.
        """
        order = [*self.tap_names, *self.head]
        last = max(order.index(tap) for tap in self._known(taps))
        with skipped_modules(model.get_submodule("decoder"), order[last + 1 :], self.cached):
            yield

    def _clips(self, batch: Tensor) -> Sequence[Tensor]:
        """One after the other: memory does not grow with the batch, and some of the classes take no batch at all."""
        return torch.split(batch.to(self.device, self.dtype), 1)

    def _check_latents(self, latents: Tensor) -> None:
        channels = self.spec.channels
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise UserError(
                f"latents of {self.name} have {channels} channels, (b, {channels}, t, h, w), got "
                f"{tuple(latents.shape)}: give what its encoder or its diffusion model makes"
            )
        self._check_count(latents.shape[2])

    def _check_count(self, num_latents: int) -> None:
        if num_latents < self.least_latents:
            raise UserError(
                f"{self.name} decodes {self.least_latents} latent frames at least ({num_latents} would not become "
                f"{self.spec.num_frames(num_latents)} frames): give {self.spec.num_frames(self.least_latents)} frames "
                f"or more"
            )

    def _known(self, taps: Sequence[str]) -> Sequence[str]:
        unknown = sorted(set(taps) - set(self.tap_names))
        if unknown:
            raise unknown_name(f"tap of {self.name}", unknown[0], self.tap_names)
        return taps

    def _tapped(self, model: nn.Module, latents: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        # A model that decodes in pieces passes a tap once per piece; the pieces come in the order of time.
        with recorded_outputs({name: self.find_tap(model, name) for name in self._known(taps)}) as pieces:
            frames = self.run_decoder(model, latents)
        whole = {name: torch.cat(pieces.pop(name), dim=2) for name in list(pieces)}
        return frames, {name: self.on_grid(feature, latents.shape[2]) for name, feature in whole.items()}


def _joined(clips: Sequence[Tensor]) -> Tensor:
    """A batch of them; the only one is not copied."""
    return clips[0] if len(clips) == 1 else torch.cat(list(clips))


class _Decoding(nn.Module):
    """A teacher's decoding as a module that can be copied and moved."""

    def __init__(self, teacher: Teacher, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._run = teacher.run_decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Latents -> frames."""
        return self._run(self.model, latents)
