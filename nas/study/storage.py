"""The SQLite database of a study, and what goes wrong with it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
import sqlalchemy.exc

from nas.terminal.errors import UserError


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage in this SQLite database, made if it is not there.

    With a write-ahead log a commit does not wait for the disk: Optuna commits every parameter of every proposal. A kill
    of the process loses nothing; a loss of power may lose the last trials, and leaves the database whole.
    """
    path = sqlalchemy.make_url(url).database

    def connect() -> sqlite3.Connection:
        assert path is not None
        connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return optuna.storages.RDBStorage(url, engine_kwargs={"creator": connect})


@contextmanager
def database_errors(folder: Path) -> Iterator[None]:
    """Turn a database that cannot be written (a full disk, mostly) into a UserError with the database's own reason."""
    try:
        yield
    except (sqlalchemy.exc.OperationalError, optuna.exceptions.StorageInternalError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(
            f"cannot write the study in {folder}: {cause}: free space or choose another folder, then run it again"
        ) from error
