"""Waiting for a database server that is away for a while: what was asked of it is asked again until it answers."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from nas.terminal.errors import UserError

PATIENCE_SECONDS = 600.0
"""How long a server may be away before a search gives up."""
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before each try; the last one again and again."""
_AWAY = ("08", "57P0", "40")
"""How SQLSTATE codes begin of a lost connection, a server that stops or starts, and a transaction to be repeated
(PostgreSQL documentation, appendix A)."""

Result = TypeVar("Result")


class Patience:
    """Repeats what fails because the server is away; safe to use from several threads."""

    def __init__(
        self, place: str, seconds: float = PATIENCE_SECONDS, on_wait: Callable[[str], None] = lambda line: None
    ) -> None:
        """Be patient with one server.

        Args:
            place: its address in messages, without a password.
            seconds: how long it may be away.
            on_wait: called with one line when it is found to be away.
        """
        self._place, self._seconds, self._on_wait = place, seconds, on_wait
        self._lock = threading.Lock()
        self._away_since: float | None = None

    def __call__(self, ask: Callable[[], Result], on_repeat: Callable[[], None] = lambda: None) -> Result:
        """What `ask` returns.

        Args:
            ask: talks to the server; may be called several times.
            on_repeat: called before `ask` is called again: what it asked for may have been done before.

        Raises:
            UserError: the server did not come back in time.
        """
        tries = 0
        while True:
            try:
                result = ask()
            except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                if not is_away(error):
                    raise
                self._wait(error, _PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1
                on_repeat()
            else:
                with self._lock:
                    self._away_since = None
                return result

    def _wait(self, error: Exception, pause: float) -> None:
        now = time.monotonic()
        with self._lock:
            first = self._away_since is None
            since = self._away_since = now if self._away_since is None else self._away_since
        if first:
            self._on_wait(f"{self._place} does not answer: trying again for {self._seconds:g} s")
        if now - since >= self._seconds:
            raise UserError(
                f"{self._place} did not answer for {self._seconds:g} s ({first_cause(error)}): start it, then run the "
                f"same command again; nothing that was finished is lost"
            ) from error
        time.sleep(pause)


def is_away(error: BaseException) -> bool:
    """Whether an error of a database means that its server is away, or that the same can simply be asked again."""
    import psycopg

    root = _root(error)
    if isinstance(root, sqlalchemy.exc.PendingRollbackError):
        return True  # what was asked lost its connection, and did not get to say so
    if not isinstance(root, psycopg.Error):
        return False
    # What fails in connecting has no code.
    code = root.sqlstate
    return code.startswith(_AWAY) if code else isinstance(root, psycopg.OperationalError)


def first_cause(error: BaseException) -> str:
    """The first line of what a database's driver said."""
    text = str(_root(error)).strip()
    return text.splitlines()[0].strip() if text else type(_root(error)).__name__


def patient_storage(storage: BaseStorage, patience: Patience) -> BaseStorage:
    """A storage over another one, each of whose operations waits for a server that is away.

    To Optuna it has no heartbeat, which Optuna expects to beat itself; `nas.study.server` does that.

    Args:
        storage: a storage of Optuna's.
        patience: with its server.
    """
    return _PatientStorage(storage, patience)


class _Patient:
    """What the operations of a patient storage have in common."""

    def __init__(self, storage: BaseStorage, patience: Patience) -> None:
        self._inner, self._patience = storage, patience

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """End or begin a trial; that the first of two tries has done it already is no error."""
        repeated: list[bool] = []
        try:
            return self._patience(
                lambda: self._inner.set_trial_state_values(trial_id, state, values), lambda: repeated.append(True)
            )
        except optuna.exceptions.UpdateFinishedTrialError:
            if repeated and self._inner.get_trial(trial_id).state == state:
                return True
            raise

    def remove_session(self) -> None:
        """Give back this thread's connection."""
        self._inner.remove_session()


def _delegate(name: str) -> Callable[..., Any]:
    """The operation of this name, asked of the inner storage."""

    def operation(self: _Patient, *values: Any, **named: Any) -> Any:
        return self._patience(lambda: getattr(self._inner, name)(*values, **named))

    operation.__name__ = name
    return operation


_OPERATIONS = sorted(BaseStorage.__abstractmethods__ - {"set_trial_state_values"})
_PatientStorage: Callable[[BaseStorage, Patience], BaseStorage] = type(
    "_PatientStorage", (_Patient, BaseStorage), {name: _delegate(name) for name in _OPERATIONS}
)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
