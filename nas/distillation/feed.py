"""Batches to train on, made by other threads before they are due."""

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from nas.data.targets import Samples, TargetBatch
from nas.machine.processes import Processes

_THREADS = max(1, min(8, (os.cpu_count() or 1) // 4))
"""Threads that read, or decode videos, each for one of the next steps: with a GPU most cores would be idle."""


class Feed:
    """What this process trains on in each step of a run, made ahead until it is closed.

    Args:
        samples: those of the train split.
        batch_size: samples of a step, over all processes.
        seed: of the order.
        steps: number of the step at which the run ends.
        processes: those that share the samples of each step.
        device: where batches are wanted.
    """

    def __init__(
        self, samples: Samples, batch_size: int, seed: int, steps: int, processes: Processes, device: torch.device
    ) -> None:
        self._samples, self._processes, self._device = samples, processes, device
        self._batch_size, self._seed, self._steps = batch_size, seed, steps
        self.places = processes.share(range(batch_size))
        """Places of what this process trains on in the batch of a step."""
        self._pool = ThreadPoolExecutor(_THREADS)
        self._coming: dict[int, Future[TargetBatch]] = {}
        self._begun = time.monotonic()
        self._waited = 0.0

    def close(self) -> None:
        """Make nothing more."""
        self._pool.shutdown(cancel_futures=True)

    @property
    def waiting(self) -> float:
        """Share of the time so far for which training waited for its data, 0 to 1."""
        return self._waited / max(time.monotonic() - self._begun, 1e-9)

    def batch(self, step: int) -> TargetBatch:
        """What this process trains on in a step; what asks for an earlier one begins anew."""
        began = time.monotonic()
        ahead = range(step, min(step + 1 + _THREADS, self._steps))
        for passed in self._coming.keys() - set(ahead):
            self._coming.pop(passed).cancel()
        for each in ahead:
            if each not in self._coming:
                self._coming[each] = self._pool.submit(self._make, each)
        batch = self._coming[step].result()
        self._waited += time.monotonic() - began
        return batch

    def _make(self, step: int) -> TargetBatch:
        order = self._samples.order(step, self._batch_size, self._seed)
        return self._samples.batch(self._processes.share(order), self._device)
