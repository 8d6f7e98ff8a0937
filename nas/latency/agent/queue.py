"""The agent's queue: jobs in an SQLite database, their uploads beside it. What is accepted survives the process."""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nas.latency.record import LatencyRecord, Workload

State = Literal["queued", "running", "done", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL,
    state TEXT NOT NULL,
    workload TEXT NOT NULL,
    record TEXT,
    error TEXT,
    changed REAL NOT NULL
)
"""


@dataclass(frozen=True)
class Job:
    """One measurement that was asked for."""

    id: str
    """Hash of what is measured, so that the same request is the same job."""
    state: State
    """Whether the job waits, is being measured, is done or has failed."""
    workload: Workload
    """The decode to measure."""
    record: LatencyRecord | None
    """Result of a job that is done, else None."""
    error: str | None
    """Why the job failed; None unless it did."""

    def to_dict(self) -> dict[str, Any]:
        """What a client gets, JSON primitives."""
        record = None if self.record is None else self.record.to_dict()
        return {"id": self.id, "state": self.state, "record": record, "error": self.error}


def job_id(device: str, digest: str, workload: Workload) -> str:
    """The id of a measurement: 32 hex digits."""
    text = json.dumps([device, digest, workload.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Queue:
    """Jobs of one folder. Every change is on disk before the call returns; calls may come from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        (folder / "uploads").mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.execute(_SCHEMA)
            # Whoever was running it has ended: nothing else works on this folder.
            connection.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def upload_path(self, job: str) -> Path:
        """Where the upload of a job is kept until it is done."""
        return self._folder / "uploads" / job

    def submit(self, job: str, workload: Workload) -> Job:
        """Put a job at the end of the queue, unless it is there or done; one that failed is tried again."""
        with self._open() as connection:
            connection.execute(
                "INSERT INTO jobs (id, state, workload, changed) VALUES (?, 'queued', ?, ?) ON CONFLICT (id) DO UPDATE "
                "SET state = 'queued', error = NULL, changed = excluded.changed WHERE state = 'failed'",
                (job, json.dumps(workload.to_dict()), time.time()),
            )
        found = self.find(job)
        assert found is not None
        return found

    def find(self, job: str) -> Job | None:
        """The job of this id, if there is one."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT id, state, workload, record, error FROM jobs WHERE id = ?", (job,)
            ).fetchone()
        return None if row is None else _job(row)

    def start_next(self) -> Job | None:
        """The job that has waited longest, now running; None if none waits."""
        with self._open() as connection:
            row = connection.execute(
                "UPDATE jobs SET state = 'running', changed = ? WHERE number = "
                "(SELECT number FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1) "
                "RETURNING id, state, workload, record, error",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def finish(self, job: str, record: LatencyRecord | None, error: str | None) -> None:
        """A job is done (with its record) or failed (with the reason); its upload goes."""
        state = "failed" if record is None else "done"
        text = None if record is None else json.dumps(record.to_dict())
        with self._open() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, record = ?, error = ?, changed = ? WHERE id = ?",
                (state, text, error, time.time(), job),
            )
        self.upload_path(job).unlink(missing_ok=True)

    def count(self, state: State) -> int:
        """Jobs in this state."""
        with self._open() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM jobs WHERE state = ?", (state,)).fetchone()[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock, closing(sqlite3.connect(self._folder / "queue.db", timeout=30)) as connection, connection:
            yield connection


def _job(row: tuple[str, State, str, str | None, str | None]) -> Job:
    name, state, workload, record, error = row
    found = None if record is None else LatencyRecord.from_dict(json.loads(record))
    return Job(name, state, Workload(**json.loads(workload)), found, error)
