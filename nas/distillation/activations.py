"""What the forward pass of a step keeps for the backward pass: how many bytes that is, and how to keep less.

Bytes are counted on fake tensors: the very operations of the step, of which nothing is computed.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from blocks import Block
from nas.distillation.training_forms import fast_functions, training_forms
from search_spaces import Decoder, DecoderConfig
from search_spaces.decoder import Stage

_SHARE = 0.5
"""Share of a device's memory that the features of a student may take; the rest is for losses, weights and others."""


@dataclass(frozen=True)
class Kept:
    """Bytes that the forward pass of a student keeps for one sample."""

    whole: int
    """Bytes of everything that the backward pass asks for."""
    recomputed: int
    """Bytes where parts are computed again in that pass: their inputs, and all that one part, the largest, keeps."""


@dataclass(frozen=True)
class Portion:
    """How the samples of a batch are computed."""

    samples: int
    """At most so many at a time."""
    recompute: bool = False
    """Whether parts are computed again in the backward pass: the same gradient, less memory, a third more time."""

    @classmethod
    def of(cls, kept: Kept, batch_size: int, memory: int) -> "Portion":
        """As many samples as the memory of a device is enough for; recomputed only where it is too little for one.

        Args:
            kept: bytes of one sample.
            batch_size: most samples.
            memory: bytes that the device has.
        """
        recompute = kept.whole > _SHARE * memory
        each = kept.recomputed if recompute else kept.whole
        return cls(min(batch_size, max(1, int(_SHARE * memory / max(1, each)))), recompute)


@lru_cache(maxsize=16)
def kept_bytes(config: DecoderConfig, size: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Kept:
    """Bytes that a student keeps for a sample of `size` latents (frames, height, width).

    Args:
        config: its architecture.
        size: of the sample.
        dtype: what convolutions are computed in.
        device: where; it decides in which form, and need not be there.
    """
    place = device if device.type == "cpu" else torch.device("meta")
    with FakeTensorMode():
        decoder = Decoder(config).train()
        latents = torch.zeros(1, config.latents.channels, *size)
        ledger = _Ledger(decoder)
        autocast = nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)
        with ledger, training_forms(decoder, place), autocast:
            decoder(latents)
    return ledger.kept


@contextmanager
def recomputing(decoder: Decoder, device: torch.device) -> Iterator[None]:
    """While it lasts, each part of a decoder keeps its input alone, and is computed again in the backward pass.

    Both passes belong into it, and the forward pass into `training_forms` for this device, since parts are computed
    again in those. Gradients are the same, bit by bit where the device computes the same twice.
    """

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), fast_functions(device)

    parts = list(_parts(decoder))
    for part in parts:
        again = partial(checkpoint, part.forward, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        part.forward = again  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def _parts(decoder: Decoder) -> Iterator[Block]:
    """The parts that a decoder calls one after the other."""
    for module in decoder.stage_modules().values():
        for part in module.parts if isinstance(module, Stage) else [module]:
            assert isinstance(part, Block)
            yield part


class _Ledger:
    """Counts what a forward pass keeps, altogether and for each part; weights do not count."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._weights = {_storage(each) for each in decoder.parameters()}
        self._seen: dict[int, Tensor] = {}
        self._inputs: dict[int, Tensor] = {}
        self._begun = self._largest = 0
        self._open = ExitStack()

    def __enter__(self) -> None:
        self._open.enter_context(saved_tensors_hooks(self._keep, lambda tensor: tensor))
        for part in _parts(self._decoder):
            self._open.callback(part.register_forward_pre_hook(self._begin).remove)
            self._open.callback(part.register_forward_hook(self._end).remove)

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @property
    def kept(self) -> Kept:
        """What was kept until now."""
        return Kept(_bytes(self._seen), _bytes(self._inputs) + self._largest)

    def _keep(self, tensor: Tensor) -> Tensor:
        if (storage := _storage(tensor)) not in self._weights:
            self._seen[storage] = tensor  # held, so that no other storage gets its number
        return tensor

    def _begin(self, part: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._inputs[_storage(inputs[0])] = inputs[0]
        self._begun = _bytes(self._seen)

    def _end(self, part: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        self._largest = max(self._largest, _bytes(self._seen) - self._begun)


def _storage(tensor: Tensor) -> int:
    """A number for the memory that a tensor lies in, the same for all views of it while it lives."""
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensors: dict[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
