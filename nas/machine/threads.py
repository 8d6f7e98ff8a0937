"""How many threads compute, and how they wait for each other. Imports nothing, as it has to come before PyTorch."""

import os

_POLICY = "OMP_WAIT_POLICY"
_given = os.environ.get(_POLICY)


def let_threads_sleep() -> None:
    """Threads that wait sleep instead of spinning, in this process and those that it starts, unless the user says how.

    A thread that spins takes its core from whatever else runs: beside one busy process the teacher needs about twice as
    long, on a quiet machine 3 to 9% longer (encoding and decoding 17 frames of 128x128, 2 cores of an Intel Xeon,
    2026-11-28). Has no effect once PyTorch is imported.
    """
    os.environ.setdefault(_POLICY, "PASSIVE")


def user_environment() -> dict[str, str]:
    """The environment as the user has given it: for measurements, which are about programs that do not do so."""
    others = {name: value for name, value in os.environ.items() if name != _POLICY}
    return others if _given is None else others | {_POLICY: _given}


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
