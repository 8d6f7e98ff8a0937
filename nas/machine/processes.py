"""Several processes that do one job together, as `accelerate launch` or `torchrun` starts them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

from nas.machine.device import choose_device
from nas.terminal.errors import UserError
from nas.terminal.memory_reasons import is_out_of_memory

Item = TypeVar("Item")
"""What is shared out."""

_PATIENCE = timedelta(days=2)
"""How long a process waits for the others, which may have targets to compute; one that has ended is noticed at once."""


@dataclass(frozen=True)
class Processes:
    """The processes of a job, as one of them sees them."""

    rank: int
    """Number of this one, from 0 on."""
    count: int
    """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """What this one does of something that all do together."""
        return items[self.rank :: self.count]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put in the place of each tensor its sum over all processes, the same to the last bit in each of them.

        Raises:
            UserError: another process has ended.
        """
        if self.count == 1:
            return
        with _together():
            flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
            torch.distributed.all_reduce(flat)
        totals = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.copy_(total.view_as(tensor))

    def wait(self) -> None:
        """Return once all processes have come here.

        Raises:
            UserError: another process has ended.
        """
        if self.count > 1:
            with _together():
                torch.distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process does what is within before the others do, who then find it done."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


ALONE = Processes(0, 1)
"""A process that has its job to itself."""


@contextmanager
def join_processes() -> Iterator[Processes]:
    """The processes that were started together with this one, by what their launcher says in the environment.

    Raises:
        UserError: one of them does not come.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    with _together():
        backend = "nccl" if choose_device().type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    """Within it, what goes wrong between processes is one clear line."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            "another process of this job has ended: start the job again, it goes on from its last checkpoint"
        ) from error
