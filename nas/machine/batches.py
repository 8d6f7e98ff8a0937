"""Work on batches whose size memory decides: half as many samples at a time whenever it runs out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from nas.terminal.memory_reasons import is_out_of_memory

Result = TypeVar("Result")
"""What a piece of work gives."""


class DoesNotFitError(Exception):
    """A single sample is too much for the memory of a device."""


@contextmanager
def out_of_memory_as(error: Exception) -> Iterator[None]:
    """Within it, running out of memory raises `error` in the place of what the allocator raised."""
    try:
        yield
    except (RuntimeError, MemoryError) as found:
        if not is_out_of_memory(found):
            raise
        raise error from found


def halving(work: Callable[[int], Result], size: int, device: torch.device) -> tuple[Result, int]:
    """Do some work, with half as many samples at a time for as long as memory runs out.

    Args:
        work: called with a number of samples; what it has begun it must be able to begin anew.
        size: number of samples to try first.
        device: where it computes.

    Returns:
        What the work gave, and the number of samples at a time that fitted.

    Raises:
        DoesNotFitError: it ran out of memory with one sample.
    """
    while True:
        try:
            return work(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise DoesNotFitError(f"{device.type} is out of memory with a single sample") from error
        # Only here, where the error is gone, nothing holds what the attempt had allocated.
        size = (size + 1) // 2
        release_memory(device)


def in_batches(
    work: Callable[[list[int]], Result], count: int, size: int, device: torch.device
) -> Iterator[tuple[list[int], Result]]:
    """Work on all indices below `count`, at most `size` at a time, and on fewer from where memory has run out.

    Yields:
        The indices of each batch, in order, and what the work on it gave.

    Raises:
        DoesNotFitError: memory ran out with one index.
    """
    first = 0
    while first < count:

        def attempt(samples: int, first: int = first) -> Result:
            return work(list(range(first, first + samples)))

        result, size = halving(attempt, min(size, count - first), device)
        yield list(range(first, first + size)), result
        first += size


def release_memory(device: torch.device) -> None:
    """Give back what PyTorch keeps of a GPU for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
