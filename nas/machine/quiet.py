"""A quiet machine: while one process measures latency on it, none trains, whichever searches they belong to.

Two locks of files, which the system lets go of however a process ends. Who trains holds the first together with others,
who measures holds it alone. Both come by the second, which who measures keeps: so who waits to measure is not passed by
others who begin to train.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def training() -> Iterator[None]:
    """Train until the end of the `with`; waits while somebody measures or waits to."""
    with _opened("turnstile") as turnstile, _opened("machine") as machine:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


@contextmanager
def measuring() -> Iterator[None]:
    """Measure until the end of the `with`; waits until nobody trains, which no one begins meanwhile."""
    with _opened("turnstile") as turnstile, _opened("machine") as machine:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(name: str) -> Iterator[int]:
    """A file of this machine and this user; closing it lets go of its lock."""
    path = Path(tempfile.gettempdir(), f"turbo-vaed-nas-{os.getuid()}-{name}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)
