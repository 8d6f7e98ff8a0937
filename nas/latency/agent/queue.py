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
from typing import Any, Literal, get_args

from nas.latency.agent.folder import UPLOADS
from nas.latency.record import LatencyRecord, Workload

State = Literal["queued", "running", "done", "failed"]

_BUSY_S = 2.0
"""Seconds for which a database that another program has locked is waited for."""

_COLUMNS = "id, state, workload, record, error"

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


class DamagedQueueError(Exception):
    """The database of the queue cannot be read or written, or holds what no agent wrote; the message says why."""


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
    """Jobs of one folder. Every change is on disk before the call returns; calls may come from any thread.

    Raises (every method does): DamagedQueueError.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        with self._open() as connection:
            # Everything is read before anything is written, so that what is damaged stays as it is.
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("database disk image is malformed")
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
                for row in connection.execute(f"SELECT {_COLUMNS} FROM jobs"):
                    _job(row)
            connection.execute(_SCHEMA)

    def upload_path(self, job: str) -> Path:
        """Where the upload of a job is kept until it is done."""
        return self._folder / UPLOADS / job

    def submit(self, job: str, workload: Workload) -> Job:
        """Put a job at the end of the queue, unless it is there or done; one that failed is tried again."""
        with self._open() as connection:
            row = connection.execute(
                "INSERT INTO jobs (id, state, workload, changed) VALUES (?, 'queued', ?, ?) ON CONFLICT (id) DO UPDATE "
                "SET state = CASE state WHEN 'failed' THEN 'queued' ELSE state END, error = NULL, "
                f"changed = excluded.changed RETURNING {_COLUMNS}",
                (job, json.dumps(workload.to_dict()), time.time()),
            ).fetchone()
            return _job(row)

    def find(self, job: str) -> Job | None:
        """The job of this id, if there is one."""
        with self._open() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone()
            return None if row is None else _job(row)

    def start_next(self) -> Job | None:
        """The job whose measurement was cut off, else the one that has waited longest, now running; None if none is."""
        with self._open() as connection:
            row = connection.execute(
                "UPDATE jobs SET state = 'running', changed = ? WHERE number = "
                "(SELECT number FROM jobs WHERE state IN ('queued', 'running') ORDER BY state DESC, number LIMIT 1) "
                f"RETURNING {_COLUMNS}",
                (time.time(),),
            ).fetchone()
            return None if row is None else _job(row)

    def finish(self, job: str, record: LatencyRecord | None, error: str | None) -> None:
        """A job is done (with its record) or failed (with the reason)."""
        state = "failed" if record is None else "done"
        text = None if record is None else json.dumps(record.to_dict())
        with self._open() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, record = ?, error = ?, changed = ? WHERE id = ?",
                (state, text, error, time.time(), job),
            )

    def waiting(self) -> list[str]:
        """The ids of the jobs that are not measured yet, in the order in which they will be."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT id FROM jobs WHERE state IN ('queued', 'running') ORDER BY state DESC, number"
            )
            return [str(row[0]) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept if the `with` ends well; the one place for errors of the database."""
        path = self._folder / "queue.db"
        try:
            with self._lock, closing(sqlite3.connect(path, timeout=_BUSY_S)) as connection, connection:
                yield connection
        # Of a damaged database not even the message about the damage may be text.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise DamagedQueueError(f"{path} cannot be used: {error}") from error


def _job(row: tuple[Any, ...]) -> Job:
    """A row as a job; sqlite3.DataError if no agent wrote it."""
    name, state, workload, record, error = row
    try:
        if not isinstance(name, str) or state not in get_args(State):
            raise ValueError(f"its state is {state!r}")
        if (state == "done") != (record is not None):
            raise ValueError(f"it is {state} {'without' if record is None else 'with'} a record")
        found = None if record is None else LatencyRecord.from_dict(json.loads(record))
        return Job(name, state, Workload(**json.loads(workload)), found, None if error is None else str(error))
    except (ValueError, TypeError, RecursionError) as problem:
        raise sqlite3.DataError(f"the job {str(name)[:40]!r} is damaged ({problem})") from problem
