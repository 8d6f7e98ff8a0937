"""Memory that runs out: hooks on real modules raise what PyTorch's allocators raise when a batch is too large."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.module import register_module_forward_pre_hook


def of_a_gpu() -> None:
    """As CUDA's allocator does it."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB.")


def of_a_cpu() -> None:
    """The allocator itself: there is no machine with so much memory."""
    torch.empty(2**50)


def limit(module: nn.Module, most: int, allocate: Callable[[], None] = of_a_gpu) -> list[int]:
    """From now on a module, and copies of it, take at most so many samples; the sizes that were asked of them."""
    asked: list[int] = []

    def check(part: nn.Module, args: tuple[Any, ...]) -> None:
        asked.append(len(args[0]))
        if len(args[0]) > most:
            allocate()

    module.register_forward_pre_hook(check)
    return asked


def limit_backward(module: nn.Module, most: int) -> None:
    """From now on the gradient of a module's output may have at most so many samples."""
    module.register_forward_hook(lambda part, args, out: _Limited.apply(out, most))  # type: ignore[no-untyped-call]


@contextmanager
def limited(kind: type[nn.Module], most: int) -> Iterator[None]:
    """While it lasts, every module of this kind takes at most so many samples."""

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        computed = not (args[0].is_meta or isinstance(args[0], FakeTensor))
        if isinstance(module, kind) and len(args[0]) > most and computed:
            of_a_gpu()

    hook = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


class _Limited(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: int) -> Tensor:
        ctx.most = most
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if len(gradient) > ctx.most:
            of_a_gpu()
        return gradient, None
