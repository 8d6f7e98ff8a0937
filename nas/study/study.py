"""The Optuna study in its database: made, opened again after whatever ended its search, and read."""

from pathlib import Path

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler

from nas.study.outcomes import check_trials
from nas.study.retries import OnGivenUp, fail_all_running
from nas.study.rungs import FrontPruner, rungs
from nas.study.server import StudyServer
from nas.study.storage import database_path, open_copy, open_storage, readable
from nas.terminal.errors import UserError

STUDY_NAME = "search"


def open_study(
    storage_url: str | sqlalchemy.URL,
    sampler: BaseSampler,
    *,
    steps: int,
    on_given_up: OnGivenUp = lambda number, decoder: None,
) -> optuna.Study:
    """The study in this database, made if it is not there; proposals that were cut off are queued again.

    Args:
        storage_url: SQLAlchemy URL of the database.
        sampler: decides on proposals.
        steps: length of the short distillation of a candidate.
        on_given_up: called with the number and the decoder of each trial that was cut off too often to be queued again.

    Raises:
        UserError: the database is damaged, or holds something else. It is not touched then.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = database_path(storage_url)
    # An empty file is what a kill leaves right after SQLite has made it.
    if path.exists() and path.stat().st_size:
        _open_checked_copy(path)
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=open_storage(storage_url),
        sampler=sampler,
        pruner=FrontPruner(rungs(steps)),
        direction="maximize",
        load_if_exists=True,
    )
    fail_all_running(study, on_given_up)
    return study


def open_shared_study(server: StudyServer, name: str, sampler: BaseSampler, steps: int) -> optuna.Study:
    """The study of this name on a server, made if it is not there; what others are working on is left alone.

    Args:
        server: where it is.
        name: of the study.
        sampler: decides on proposals.
        steps: length of the short distillation of a candidate.

    Raises:
        UserError: it is not a study of this program.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with server.turn(name):
        study = optuna.create_study(
            study_name=name,
            storage=server.storage,
            sampler=sampler,
            pruner=FrontPruner(rungs(steps)),
            direction="maximize",
            load_if_exists=True,
        )
        _check_shared(study, server)
    return study


def load_shared_study(server: StudyServer, name: str) -> optuna.Study:
    """The study of this name on a server, to read.

    Raises:
        UserError: there is none, or it is not a study of this program.
    """
    study = find_shared_study(server, name)
    _check_shared(study, server)
    return study


def find_shared_study(server: StudyServer, name: str) -> optuna.Study:
    """As `load_shared_study`, without a look at its trials, for which plugins may have to be loaded first."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=server.storage)
    except KeyError:
        known = ", ".join(sorted(each.study_name for each in server.storage.get_all_studies())) or "none"
        raise UserError(
            f"{server.place} holds no study '{name}' (it holds: {known}): start one with python -m nas.search "
            f"--storage ... --run {name}"
        ) from None


def _check_shared(study: optuna.Study, server: StudyServer) -> None:
    try:
        if study.direction != optuna.study.StudyDirection.MAXIMIZE:
            raise ValueError("it looks for the lowest score")
        check_trials(study)
    except ValueError as error:
        raise UserError(
            f"the study '{study.study_name}' of {server.place} is not of this program ({error}): choose another name"
        ) from error


def load_study(storage_url: str | sqlalchemy.URL) -> optuna.Study:
    """A copy of the study in this database, to read.

    Raises:
        UserError: there is none yet, the database is damaged, or it holds something else.
    """
    study = find_study(storage_url)
    if study is None:
        path = database_path(storage_url)
        raise UserError(f"{path} holds no study yet: run the same python -m nas.search again first")
    return study


def find_study(storage_url: str | sqlalchemy.URL) -> optuna.Study | None:
    """A copy of the study in this database, to read; None if there is none yet.

    Raises:
        UserError: the database is damaged, or holds something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = database_path(storage_url)
    return _open_checked_copy(path) if path.exists() and path.stat().st_size else None


def _open_checked_copy(path: Path) -> optuna.Study | None:
    """A copy of the study in a database, all of whose trials can be read; None if a kill left it without one."""
    storage = open_copy(path)
    with readable(path):
        names = [study.study_name for study in storage.get_all_studies()]
        if not names:
            return None
        if names != [STUDY_NAME]:
            raise ValueError(f"it holds a study named '{names[0]}', which is not of this program")
        study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
        if study.direction != optuna.study.StudyDirection.MAXIMIZE:
            raise ValueError("its study looks for the lowest score")
        check_trials(study)
    return study
