"""The SQLite database of a study: opening it, reading it without touching it, and what goes wrong with it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages._rdb.models import BaseModel

from nas.terminal.errors import UserError

_LOCK_SECONDS = 20.0
"""Longest wait for another program that holds the database."""
_OURS = {*BaseModel.metadata.tables, "alembic_version"}
"""Tables that Optuna makes."""
_REMEDIES = {
    "SQLITE_FULL": "the disk is full: free space, then run it again",
    "SQLITE_BUSY": "another program has locked it: close that program, then run it again",
    "SQLITE_LOCKED": "another program has locked it: close that program, then run it again",
    "SQLITE_READONLY_DBMOVED": "it was moved or deleted while this was running: put it back, then run it again",
    "SQLITE_READONLY": "it cannot be written: make it writable or choose another --run",
    "SQLITE_IOERR": "its disk failed, or it was deleted while this was running: look at both, then run it again",
    "SQLITE_CANTOPEN": "it cannot be opened: was its folder moved, or is its disk full or forbidden?",
    "SQLITE_CORRUPT": "it is damaged: restore it from a copy, or start a new run with another --run",
    "SQLITE_NOTADB": "it is damaged: restore it from a copy, or start a new run with another --run",
}
"""SQLite's name of an error -> what it means and what to do. Names of finer errors begin with one of these."""


def storage_url(path: Path) -> sqlalchemy.URL:
    """Address of the database in this file, whatever characters its path has."""
    return sqlalchemy.URL.create("sqlite", database=str(path))


def database_path(url: str | sqlalchemy.URL) -> Path:
    """File of the database at an address."""
    database = sqlalchemy.make_url(url).database
    assert database is not None
    return Path(database)


def open_storage(url: str | sqlalchemy.URL) -> optuna.storages.RDBStorage:
    """Optuna's storage in this SQLite database, made if it is not there.

    With a write-ahead log a commit does not wait for the disk: Optuna commits every parameter of every proposal. A kill
    of the process loses nothing; a loss of power may lose the last trials, and leaves the database whole.
    """
    path = database_path(url)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    # Optuna formats an address as a template, and would take braces in a path for fields of it.
    return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


def open_copy(path: Path) -> optuna.storages.RDBStorage:
    """Optuna's storage over a copy in memory: whatever is done with it, the file stays as it is.

    Raises:
        UserError: there is no such database, it is damaged, or it is another program's.
    """
    with readable(path):
        with path.open("rb"):
            # SQLite's own error would not say why a file cannot be opened.
            pass
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        # Without a log beside it nobody writes to the file, and reading it need not make one.
        live = any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))
        mode = "mode=ro" if live else "immutable=1"
        source = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=_LOCK_SECONDS)
        with closing(source):
            source.backup(memory)
        problem = memory.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise ValueError(f"it is damaged: {problem}")
        tables = {name for (name,) in memory.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if foreign := tables - _OURS:
            raise ValueError(f"it is another program's: it has a table '{min(foreign)}'")
        # Of tables that a kill left unfinished none has anything in it.
        missing = _OURS - tables
        if missing and "studies" in tables and memory.execute("SELECT count(*) FROM studies").fetchone()[0]:
            raise ValueError(f"it is damaged: it has no table '{min(missing)}'")
        pool = {"creator": lambda: memory, "poolclass": sqlalchemy.StaticPool}
        return optuna.storages.RDBStorage("sqlite://", engine_kwargs=pool)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in reading a database, down to the values in it, into one line that names the file.

    Raises:
        UserError: it cannot be read; the message has the cause.
    """
    try:
        yield
    except UserError:
        raise
    # What damaged values lead to has no common class; nothing but reading happens under this.
    except Exception as error:
        raise UserError(
            f"{path} cannot be read ({_describe(error)}): restore it from a copy, or start a new run with another --run"
        ) from error


@contextmanager
def database_errors(folder: Path) -> Iterator[None]:
    """Turn a database that cannot be used (a full disk, a lock, a damaged file) into one line with its own reason.

    Raises:
        UserError: the database in `folder` failed.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        name = getattr(_root(error), "sqlite_errorname", "")
        meant = next((text for start, text in _REMEDIES.items() if name.startswith(start)), "run it again")
        raise UserError(f"cannot use the study in {folder} ({_describe(error)}): {meant}") from error


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _describe(error: BaseException) -> str:
    """The first cause in one line."""
    root = _root(error)
    text = " ".join(str(getattr(root, "strerror", None) or root).split())
    return f"{type(root).__name__} {text}" if isinstance(root, KeyError) else text or type(root).__name__
