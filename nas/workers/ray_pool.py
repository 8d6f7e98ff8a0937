"""A pool over a Ray cluster: each job is a task, which Ray runs where there is room, and again if its node is lost.

Nothing but the installed program has to be on the nodes. A checkpoint travels with its job, and back with what was
found. Targets are read at the same path where the nodes share a disk; where they do not, they are fetched once per node
into its cache, and checked.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import nas
from nas.data.shards import is_whole, shard_digest
from nas.data.targets import ShardSamples, Targets
from nas.machine.files import default_cache_dir, disk_errors, write_bytes
from nas.machine.temporary import temporary_folder
from nas.terminal.errors import UserError
from nas.workers.job import Job, Segment
from nas.workers.pool import Result, WorkerDiedError

if TYPE_CHECKING:
    from ray import ObjectRef

_RETRIES = 3
"""How often Ray runs a task again whose process or node is lost."""
_MOST_THREADS = 256
"""Jobs at a time; each has a thread here that waits for it."""
_CONNECT_SECONDS = 10.0
"""Longest wait for somebody who listens at an address; Ray itself would try for minutes."""
_opened: Targets | None = None
"""The targets of the job before, in a process of a node."""


@dataclass(frozen=True)
class _Parcel:
    """A job, and what it needs from here."""

    job: Job
    """The job, with paths as they are here."""
    checkpoint: bytes | None
    """Content of its checkpoint; None if there is none yet."""
    digests: Mapping[str, str]
    """What the files of its targets hold: name -> digest."""
    shards: "Mapping[str, ObjectRef[bytes]] | None"
    """The files of its targets by name, for a node that does not have them; None before one has said so."""
    version: str
    """Version of the program here."""


class RayPool:
    """Runs each job as a task of a Ray cluster."""

    def __init__(self, address: str, slots: int | None = None) -> None:
        """Connect to a cluster that runs.

        Args:
            address: `auto` for the one of this machine, or `host:port` of its head.
            slots: jobs at a time; None: as many as the cluster has GPUs, or if it has none, cores.

        Raises:
            UserError: there is none, or it is of other versions of Ray or Python.
        """
        # Has to be known before Ray is imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        _connect(address)
        self._slots = slots
        self._gpu = bool(ray.cluster_resources().get("GPU"))
        needed = {"num_gpus": 1} if self._gpu else {"num_cpus": 1}
        self._task = ray.remote(_train).options(max_retries=_RETRIES, retry_exceptions=False, **needed)
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="ray job")
        self._running: set[Any] = set()
        self._shards: dict[str, dict[str, ObjectRef[bytes]]] = {}
        self._digests: dict[str, dict[str, str]] = {}
        self._closed = False

    @property
    def device(self) -> str:
        """Where jobs train: "cuda" if the cluster has a GPU, else "cpu"."""
        return "cuda" if self._gpu else "cpu"

    @property
    def slots(self) -> int:
        """Number of jobs that run side by side; changes as nodes come and go."""
        import ray

        if self._slots is not None:
            return self._slots
        return max(1, min(_MOST_THREADS, int(ray.cluster_resources().get("GPU" if self._gpu else "CPU", 0))))

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run a job as soon as the cluster has room for it; its checkpoint and its targets travel with it.

        Raises:
            TypeError: it is no `Job`: nobody knows what else would have to travel.
        """
        if not isinstance(work, Job):
            raise TypeError(f"a Ray cluster runs jobs, got {type(work).__name__}")
        return cast("Future[Result]", self._threads.submit(self._run, work))

    def get_ready(self) -> None:
        """The processes of a cluster are Ray's."""

    def close(self) -> None:
        """Stop what runs, and leave the cluster as it is."""
        import ray

        self._closed = True
        for task in list(self._running):
            ray.cancel(task, force=True)
        self._threads.shutdown(wait=True, cancel_futures=True)
        ray.shutdown()

    def _run(self, job: Job) -> Segment:
        checkpoint = job.checkpoint.read_bytes() if job.checkpoint.exists() else None
        parcel = _Parcel(job, checkpoint, self._digests_of(job.targets), None, nas.__version__)
        found = self._ask(parcel)
        if found is None:
            found = self._ask(replace(parcel, shards=self._shards_of(job.targets)))
        assert found is not None
        segment, checkpoint = found
        if checkpoint is not None:
            with disk_errors("cannot write the checkpoint"):
                write_bytes(job.checkpoint, checkpoint, parents=False)
        return segment

    def _ask(self, parcel: _Parcel) -> tuple[Segment, bytes | None] | None:
        """What a job gave, and its checkpoint; None if its node does not have the targets."""
        import ray

        if self._closed:
            raise WorkerDiedError("the pool is closed")
        task = self._task.remote(parcel)
        self._running.add(task)
        try:
            found: tuple[Segment, bytes | None] | None = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise WorkerDiedError(f"Ray lost it {_RETRIES + 1} times ({reason})") from error
        finally:
            self._running.discard(task)
        return found

    def _digests_of(self, targets: Targets) -> Mapping[str, str]:
        if targets.key not in self._digests:
            self._digests[targets.key] = {path.name: shard_digest(path) for path in _files(targets)}
        return self._digests[targets.key]

    def _shards_of(self, targets: Targets) -> "Mapping[str, ObjectRef[bytes]]":
        import ray

        if targets.key not in self._shards:
            self._shards[targets.key] = {path.name: ray.put(path.read_bytes()) for path in _files(targets)}
        return self._shards[targets.key]


def _connect(address: str) -> None:
    import ray

    expected = "expected 'auto' or host:port of a cluster that runs (ray start --head)"
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise UserError(f"{expected}, got --ray {address}")
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(f"no Ray cluster answers at {address} ({error}): {expected}") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot join the Ray cluster '{address}' ({reason}): {expected}") from error


def _files(targets: Targets) -> list[Path]:
    """The files that targets are read from."""
    return [path for split in targets.splits.values() if isinstance(split, ShardSamples) for path in split.shards]


def _train(parcel: _Parcel) -> tuple[Segment, bytes | None] | None:
    """The task: run a job on this node.

    Returns:
        What it gave and its checkpoint; None if this node does not have the targets and they did not come along.

    Raises:
        UserError: this node has another version of the program, or what it fetched is not what was sent.
    """
    import torch

    job = parcel.job
    if nas.__version__ != parcel.version:
        raise UserError(
            f"the node {socket.gethostname()} has version {nas.__version__} of this program, the search has "
            f"{parcel.version}: install the same on all nodes"
        )
    targets = _find_targets(parcel)
    if targets is None:
        return None
    if job.device == "cpu":
        torch.set_num_threads(1)
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        checkpoint = folder / job.checkpoint.name
        if parcel.checkpoint is not None:
            write_bytes(checkpoint, parcel.checkpoint)
        segment = replace(job, targets=targets, checkpoint=checkpoint)()
        return segment, checkpoint.read_bytes() if checkpoint.exists() else None


def _find_targets(parcel: _Parcel) -> Targets | None:
    """The targets as this node can read them; None if it cannot."""
    global _opened  # a process runs many jobs, and need not read the same files for each of them
    targets = parcel.job.targets
    if _opened is not None and _opened.key == targets.key:
        return _opened
    cache = default_cache_dir() / "targets" / targets.key
    places: dict[Path, Path] = {}
    for path in _files(targets):
        wanted = parcel.digests[path.name]
        places[path] = next((each for each in (path, cache / path.name) if _holds(each, wanted)), cache / path.name)
        if not _holds(places[path], wanted):
            if parcel.shards is None:
                return None
            _fetch(parcel.shards[path.name], places[path], wanted)
    splits = {
        name: replace(split, shards=tuple(places[path] for path in split.shards))
        if isinstance(split, ShardSamples)
        else split
        for name, split in targets.splits.items()
    }
    _opened = replace(targets, splits=splits)
    return _opened


def _holds(path: Path, digest: str) -> bool:
    return is_whole(path, check_data=False) and shard_digest(path) == digest


def _fetch(shard: "ObjectRef[bytes]", path: Path, digest: str) -> None:
    import ray

    with disk_errors("cannot keep the targets on this node"):
        write_bytes(path, ray.get(shard))
    if not (is_whole(path, check_data=True) and shard_digest(path) == digest):
        raise UserError(f"{path} on {socket.gethostname()} is not what was sent: is its disk whole?")
