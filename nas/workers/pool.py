"""Pools: where the pieces of distillations of a search run, one after the other or side by side."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

Result = TypeVar("Result")
"""What a job gives, which may be pickled as the job itself: see `nas.workers.job.Job`."""


class WorkerDiedError(Exception):
    """The process that a job ran in was killed, again and again: most likely it needs more memory than there is."""


class Pool(Protocol):
    """Runs jobs."""

    @property
    def slots(self) -> int:
        """Number of jobs that run side by side."""

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run a job as soon as a slot is free.

        What the job raises is raised by the future's result; WorkerDiedError if it cannot be run.
        """

    def get_ready(self) -> None:
        """Start what jobs will run in, so that the first does not wait for it; returns at once."""

    def close(self) -> None:
        """Stop whatever runs. A job that is stopped leaves its last checkpoint."""


class InlinePool:
    """Runs each job in this process when it is submitted, on all of its threads."""

    slots = 1

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run a job; it has ended when this returns."""
        future: Future[Result] = Future()
        try:
            future.set_result(work())
        except Exception as error:  # handed on to whoever asks for the result
            future.set_exception(error)
        return future

    def get_ready(self) -> None:
        """Jobs run in this process."""

    def close(self) -> None:
        """Nothing runs."""
