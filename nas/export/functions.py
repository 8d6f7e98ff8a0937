"""A finished decoder as the functions of a package, before they are converted: rewritten, with what PyTorch gives."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from blocks import rewrites
from blocks.layers.norms import RmsNorm
from nas.core_ml.one_decode import OneDecode
from nas.export.settings import ExportSettings, Rewrite
from nas.terminal.errors import UserError
from search_spaces import Decoder, LatentSpec

_REWRITES: dict[Rewrite, Callable[[nn.Module], int]] = {
    "subpixel": rewrites.subpixel_enlargements,
    "joined": rewrites.conv3d_as_joined_frames,
    "slices": rewrites.conv3d_as_slices,
}
"""Rewrites in the order in which they are done: what cannot be joined is left to slices."""


DRAWS = 3
"""Least number of latents that a package is proven on; one of them at least is noise."""


@dataclass(frozen=True)
class Draw:
    """Inputs of a function, and what PyTorch makes of them."""

    inputs: dict[str, Tensor]
    """Inputs by name."""
    outputs: dict[str, Tensor]
    """Outputs of PyTorch by name: the frames are those of the decoder before it was rewritten."""


@dataclass(frozen=True)
class Function:
    """A function of a package before it is converted."""

    module: nn.Module
    """Module that takes the inputs and returns the outputs, in their order."""
    draws: tuple[Draw, ...]
    """What it is proven on: real latents, if there are some, before noise."""

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Example inputs by name."""
        return self.draws[0].inputs

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Outputs for the example inputs by name."""
        return self.draws[0].outputs


@torch.no_grad()
def make_functions(
    decoder: Decoder, settings: ExportSettings, latents: Tensor | None
) -> tuple[dict[str, Function], int]:
    """Functions of the package by name; and the number of scaled norms, which only float16 throughout needs.

    Branches and batch norms become single convolutions, then what the settings ask for is rewritten.

    Args:
        decoder: in evaluation mode; stays as it is.
        settings: what the package is made for.
        latents: real ones to decode, `(b, c, t, h, w)`, cut or repeated to the size of the decode; noise with the
            latents' own mean and std is always decoded, too.

    Raises:
        UserError: the size is not on the latents' grid, the decoder does not stream, or a rewrite changes nothing.
    """
    spec = decoder.config.latents
    try:
        shape = spec.latent_shape(settings.num_frames, settings.height, settings.width)
    except ValueError as error:
        raise UserError(f"the frames do not fit the latents: {error}") from error
    real = [] if latents is None else [_fitted(each, shape) for each in torch.split(latents, 1)]
    clips = [*real, *(_noise(spec, shape, seed) for seed in range(max(1, DRAWS - len(real))))]
    rewritten = _rewrite(decoder, settings)
    with _largest_inputs(decoder) as largest:
        if settings.streaming:
            functions = _chunks(decoder, rewritten, clips)
        else:
            draws = tuple(Draw({"latents": clip}, {"frames": OneDecode(decoder)(clip)}) for clip, _ in clips)
            functions = {"main": Function(OneDecode(rewritten), draws)}
    # No rewrite moves a norm: it has the same name and the same input in what is exported.
    return functions, rewrites.scale_norms(rewritten, largest) if settings.precision == "float16" else 0


class _Chunk(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One chunk: the first of a stream if there is no state."""
        frames, new_state = self.decoder.stream(latents, state or None)
        return (frames.clamp(-1, 1), *new_state)


def _rewrite(decoder: Decoder, settings: ExportSettings) -> Decoder:
    rewritten = copy.deepcopy(decoder)
    rewrites.merge_branches(rewritten, decoder.config.temporal_mode)
    rewrites.fold_norms(rewritten)
    for name, rewrite in _REWRITES.items():
        if name in settings.rewrites and not rewrite(rewritten):
            raise UserError(f"the rewrite '{name}' finds nothing to change in this decoder: leave it out")
    return rewritten


def _chunks(decoder: Decoder, rewritten: Decoder, clips: list[tuple[Tensor, Tensor]]) -> dict[str, Function]:
    """The first two chunks. Their state is that of what is exported: convolutions that are one now have one past."""
    chunk, plain = _Chunk(rewritten), _Chunk(decoder)
    draws: dict[str, list[Draw]] = {"first": [], "next": []}
    for latents, following in clips:
        try:
            frames, *plain_state = plain(latents)
        except ValueError as error:
            raise UserError(f"this decoder does not stream: {error}") from error
        _, *state = chunk(latents)
        next_frames, *_ = plain(following, *plain_state)
        _, *new_state = chunk(following, *state)
        next_inputs = {"latents": following} | {f"state_{index}": tensor for index, tensor in enumerate(state)}
        draws["first"].append(Draw({"latents": latents}, _outputs(frames, state)))
        draws["next"].append(Draw(next_inputs, _outputs(next_frames, new_state)))
    return {name: Function(chunk, tuple(each)) for name, each in draws.items()}


def _outputs(frames: Tensor, state: list[Tensor]) -> dict[str, Tensor]:
    return {"frames": frames} | {f"new_state_{index}": tensor for index, tensor in enumerate(state)}


def _noise(spec: LatentSpec, shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Two chunks of noise with the latents' mean and std, `(1, c, t, h, w)` each for a shape `(c, t, h, w)`."""
    per_channel = (1, -1, 1, 1, 1)
    mean = torch.tensor(spec.mean or (0.0,) * spec.channels).view(per_channel)
    std = torch.tensor(spec.std or (1.0,) * spec.channels).view(per_channel)
    first, second = (
        torch.randn(1, *shape, generator=torch.Generator().manual_seed(2 * seed + part)) for part in (0, 1)
    )
    return mean + std * first, mean + std * second


def _fitted(latents: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two chunks of latents, cut to the shape `(c, t, h, w)` or repeated until they fill it."""
    _, frames, height, width = shape
    wanted = (2 * frames, height, width)
    repeats = [-(-size // have) for size, have in zip(wanted, latents.shape[2:], strict=True)]
    filled = latents.repeat(1, 1, *repeats)[..., :height, :width]
    return filled[:, :, :frames], filled[:, :, frames : 2 * frames]


@contextmanager
def _largest_inputs(decoder: Decoder) -> Iterator[dict[str, float]]:
    """Largest absolute value that each norm is given, by its name; filled while the decoder runs."""
    largest: dict[str, float] = {}

    def observe(name: str, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        largest[name] = max(inputs[0].abs().max().item(), largest.get(name, 0.0))

    norms = [(name, module) for name, module in decoder.named_modules() if isinstance(module, RmsNorm)]
    handles = [norm.register_forward_pre_hook(partial(observe, name)) for name, norm in norms]
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()
