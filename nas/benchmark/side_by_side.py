"""Jobs of the benchmark: each leaves a file, so what was cut off goes on with those whose files are missing."""

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Protocol

from nas.workers.pool import Pool


class FileJob(Protocol):
    """Something to do in a process of its own."""

    @property
    def file(self) -> Path:
        """What it writes when it is done, in one step."""

    def __call__(self) -> None:
        """Do it."""


def run_missing(jobs: Sequence[FileJob], pool: Pool, progress: Callable[[int, int], None]) -> None:
    """Do what has not been done.

    Args:
        jobs: what shall be done in the end.
        pool: where.
        progress: called with the number of jobs that are done and of all.
    """
    missing = [job for job in jobs if not job.file.exists()]
    progress(len(jobs) - len(missing), len(jobs))
    waiting = [pool.submit(job) for job in missing]
    for done, future in enumerate(as_completed(waiting), start=1):
        future.result()
        progress(len(jobs) - len(missing) + done, len(jobs))
