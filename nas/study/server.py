"""A study on a PostgreSQL server, worked on by several searches at the same time.

Each search asks for proposals, trains them, and tells what became of them. What only one may do at a time, it does in
its turn: a lock on the server, which the server takes back from whoever dies. A search that lives says so every few
seconds for each of its trials; the trials of one that has been silent for the grace period are given to the others.
"""

import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from nas.study.patience import PATIENCE_SECONDS, Patience, first_cause, is_away, patient_storage
from nas.terminal.errors import UserError, without_secrets

GRACE_SECONDS = 120
"""How long a search may be silent before its trials are given to others."""
_BEATS = 4
"""Heartbeats in a grace period."""
_LOCK = 0x6E6173
"""First number of the locks that are this program's ("nas")."""
_BEATING = "beating"
"""User attribute of a trial that has a heartbeat."""


@dataclass(frozen=True)
class Turn:
    """What one search alone may do now."""

    connection: sqlalchemy.Connection
    """Holds the lock."""
    process: int
    """Number of the server's process that held the lock when the turn began."""

    def held(self) -> bool:
        """Whether it was nobody else's turn until now; False if the server has been away."""
        try:
            return _server_process(self.connection) == self.process
        except sqlalchemy.exc.SQLAlchemyError as error:
            if is_away(error):
                return False
            raise


class StudyServer:
    """The database that a study is in, and the other searches that work on it."""

    def __init__(
        self,
        url: str,
        grace: int = GRACE_SECONDS,
        *,
        patience: float = PATIENCE_SECONDS,
        on_wait: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Open the database; its tables are made if they are not there.

        Args:
            url: `postgresql://user@host/database`. What it leaves out, the password above all, is taken from where
                PostgreSQL's own programs look for it: PGPASSWORD, ~/.pgpass and so on.
            grace: seconds that a search may be silent before its trials are given to others.
            patience: seconds that the server may be away, once it was there.
            on_wait: called with one line when it is found to be away.

        Raises:
            UserError: no address of a PostgreSQL database, nobody answers, or the tables are another program's.
        """
        address = server_address(url)
        plain = address.set(drivername="postgresql")
        self.place = _without_secret_options(plain).render_as_string(hide_password=True)
        """The address for people."""
        self.address = _without_password(plain).render_as_string()
        """The address without a password, to be kept."""
        self.grace = grace
        self.beat_seconds = grace / _BEATS
        connecting = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        self._engine = sqlalchemy.create_engine(
            address, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT", connect_args=connecting
        )
        self._patience = Patience(self.place, patience, on_wait)
        self._beaten: set[int] = set()
        self._ids: dict[tuple[str, int], int] = {}
        try:
            # Of two searches that start at the same time one makes the tables.
            with self._lock("tables"):
                self._storage = _open_tables(address, grace, connecting)
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
            raise UserError(
                f"cannot use the database {self.place} ({first_cause(error)}): see that the server runs, that the "
                f"database exists, and that user and password (PGPASSWORD or ~/.pgpass) are right"
            ) from error
        self.storage: BaseStorage = patient_storage(optuna.storages.get_storage(self._storage), self._patience)
        """Optuna's storage, every operation of which waits for a server that is away."""

    @contextmanager
    def turn(self, study: str) -> Iterator[Turn]:
        """Wait until no other search does what only one may do, and be the one until the end of the `with`.

        Args:
            study: name of the study.
        """
        turn = self._patience(lambda: _begin(self._lock(study)))
        with turn.connection:
            yield turn

    def beat(self, study: str, number: int) -> None:
        """Say that a trial is being worked on.

        Args:
            study: name of the study.
            number: of the trial.
        """
        trial = self._trial_id(study, number)
        self._patience(lambda: self._storage.record_heartbeat(trial))

    def fail_stale(self, study: optuna.Study) -> None:
        """Fail every running trial whose search has been silent for the grace period. To be called in a turn.

        Nothing is failed until the server itself has been up for a grace period: nobody could be heard before.
        """
        if self._patience(self._up_seconds) <= self.grace:
            return
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # A search that dies right after asking has not beaten once; Optuna would wait for its first beat for ever.
            if _BEATING not in trial.user_attrs and trial.number not in self._beaten:
                self._beaten.add(trial.number)
                self.beat(study.study_name, trial.number)
        # To Optuna the patient storage has no heartbeat.
        known = self._patience(lambda: optuna.load_study(study_name=study.study_name, storage=self._storage))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._patience(lambda: optuna.storages.fail_stale_trials(known))

    def close(self) -> None:
        """Give back the connections."""
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._engine.dispose()

    def _trial_id(self, study: str, number: int) -> int:
        if (study, number) not in self._ids:
            known = self.storage.get_study_id_from_name(study)
            find = self._storage.get_trial_id_from_study_id_trial_number
            self._ids[study, number] = self._patience(lambda: find(known, number))
        return self._ids[study, number]

    def _up_seconds(self) -> float:
        with self._engine.connect() as connection:
            query = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())"
            return float(connection.execute(sqlalchemy.text(query)).scalar_one())

    def _lock(self, name: str) -> sqlalchemy.Connection:
        """A connection that holds an advisory lock of the server until it is closed."""
        connection = self._engine.connect()
        try:
            # So that the server notices within a minute that the machine of a holder is gone.
            for setting in ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3"):
                connection.execute(sqlalchemy.text(f"SET {setting}"))
            query = sqlalchemy.text("SELECT pg_advisory_lock(:program, :name)")
            connection.execute(query, {"program": _LOCK, "name": zlib.crc32(name.encode()) - 2**31})
        except BaseException:
            connection.close()
            raise
        return connection


class Heart:
    """A thread that beats for all trials that this search works on."""

    def __init__(self, server: StudyServer, study: str) -> None:
        """Prepare to beat.

        Args:
            server: where the study is.
            study: its name.
        """
        self._server, self._study = server, study
        self._numbers: set[int] = set()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._beat_on, name="heart", daemon=True)

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        # It may be waiting for a server that is away; whoever ends need not.
        self._thread.join(timeout=2)

    def add(self, trial: optuna.Trial) -> None:
        """Beat for a trial from now on."""
        self._server.beat(self._study, trial.number)
        trial.set_user_attr(_BEATING, True)
        with self._lock:
            self._numbers.add(trial.number)

    def remove(self, number: int) -> None:
        """Beat for a trial no more: it has ended."""
        with self._lock:
            self._numbers.discard(number)

    def beat(self) -> None:
        """Beat once, now."""
        with self._lock:
            numbers = sorted(self._numbers)
        for number in numbers:
            self._server.beat(self._study, number)

    def check(self) -> None:
        """See that it beats.

        Raises:
            UserError: the server did not answer for too long.
        """
        if self._error is not None:
            raise self._error

    def _beat_on(self) -> None:
        try:
            while not self._stop.wait(self._server.beat_seconds):
                self.beat()
        except Exception as error:  # told to whoever calls `check`
            self._error = error


def is_server(text: str) -> bool:
    """Whether a `--storage` is the address of a server."""
    return "://" in text


def server_address(text: str) -> sqlalchemy.URL:
    """An address with the driver that is used.

    Raises:
        UserError: it is not of a PostgreSQL database.
    """
    expected = "expected the address of a PostgreSQL database such as postgresql://user@host/database"
    try:
        url = sqlalchemy.make_url(text)
        # What the system's resolver and the driver will do with them, and then not say as clearly.
        (url.host or "").encode("idna")
        text.encode()
        is_address = url.port is None or 0 < url.port < 2**16
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise UserError(f"{expected}, got '{without_secrets(text)}'") from error
    if not is_address or "\0" in text or url.get_backend_name() not in ("postgresql", "postgres"):
        raise UserError(f"{expected}, got '{without_secrets(text)}'")
    return url.set(drivername="postgresql+psycopg")


def _without_password(url: sqlalchemy.URL) -> sqlalchemy.URL:
    """The same address; `URL.set` leaves a password where it is told of none."""
    url = _without_secret_options(url)
    return sqlalchemy.URL.create(
        url.drivername, url.username, host=url.host, port=url.port, database=url.database, query=url.query
    )


def _without_secret_options(url: sqlalchemy.URL) -> sqlalchemy.URL:
    return url.set(query={name: value for name, value in url.query.items() if "password" not in name})


def _begin(connection: sqlalchemy.Connection) -> Turn:
    return Turn(connection, _server_process(connection))


def _server_process(connection: sqlalchemy.Connection) -> int:
    """A connection that was lost is made again by itself, to another process."""
    return int(connection.execute(sqlalchemy.text("SELECT pg_backend_pid()")).scalar_one())


def _open_tables(address: sqlalchemy.URL, grace: int, connecting: dict[str, int]) -> optuna.storages.RDBStorage:
    # Optuna formats an address as a template.
    text = address.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(
            text,
            engine_kwargs={"pool_pre_ping": True, "connect_args": connecting},
            heartbeat_interval=max(grace // _BEATS, 1),
            grace_period=grace,
        )
