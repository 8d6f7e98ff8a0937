"""The Optuna study in its database: made, opened again after whatever ended its search, and read."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from optuna.trial import TrialState

from nas.study.outcomes import check_trials
from nas.study.rungs import FrontPruner, rungs
from nas.study.storage import database_path, open_copy, open_storage, readable
from nas.terminal.errors import UserError
from nas.terminal.parser import SEEDS
from search_spaces import DecoderConfig

STUDY_NAME = "search"
MAX_ATTEMPTS = 3
"""How often a proposal is tried that was cut off (by a kill, not by an error)."""


def open_study(
    storage_url: str | sqlalchemy.URL,
    seed: int,
    *,
    steps: int,
    on_given_up: Callable[[int, str], None] = lambda number, decoder: None,
) -> optuna.Study:
    """The study in this database, made if it is not there; proposals that were cut off are queued again.

    Args:
        storage_url: SQLAlchemy URL of the database.
        seed: random seed of the sampler.
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
        direction="maximize",
        pruner=FrontPruner(rungs(steps)),
        load_if_exists=True,
    )
    with without_experimental_warnings():
        # Another stream of random numbers after every resume, or the same proposals would come again.
        seed = (seed + len(study.get_trials(deepcopy=False))) % SEEDS
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
    _requeue_interrupted(study, on_given_up)
    return study


def load_study(storage_url: str | sqlalchemy.URL) -> optuna.Study:
    """A copy of the study in this database, to read.

    Raises:
        UserError: there is none yet, the database is damaged, or it holds something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = database_path(storage_url)
    study = _open_checked_copy(path) if path.exists() and path.stat().st_size else None
    if study is None:
        raise UserError(f"{path} holds no study yet: run the same python -m nas.search again first")
    return study


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


def _requeue_interrupted(study: optuna.Study, on_given_up: Callable[[int, str], None]) -> None:
    """A trial that is still running when nobody works on the study was cut off: fail it and queue its choices again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        attempt = int(trial.user_attrs.get("attempt", 1))
        study.tell(trial.number, state=TrialState.FAIL)
        if attempt < MAX_ATTEMPTS:
            attrs = {"retry_of": trial.number, "attempt": attempt + 1}
            if "preset" in trial.user_attrs:
                attrs["preset"] = trial.user_attrs["preset"]
            study.enqueue_trial(trial.params, user_attrs=attrs)
        else:
            config = trial.user_attrs.get("config")
            on_given_up(trial.number, DecoderConfig.from_dict(config).summary() if config else "")


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Optuna calls the grouped search space experimental; there is nothing that a user could do about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
