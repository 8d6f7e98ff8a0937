"""The Optuna study: asking for proposals, running their trials, telling what became of them, and when to stop.

A proposal over the budget, or one that cannot be exported, is never trained. Others get a short distillation, pruned if
they fall behind, and a score. Latency is a constraint of the study, so the sampler learns where the budget ends.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.trial import TrialState

from blocks import NotBuildableError
from nas.latency.record import MeasurementFailedError
from nas.study.candidate import MakeCandidate
from nas.study.constraints import Constraint, all_met, most_violated
from nas.study.costs import Costs
from nas.study.outcomes import TRAINED, Outcome, check_trials, finished_trials, read_outcomes, status_of, trained_count
from nas.study.storage import database_path, open_copy, open_storage, readable
from nas.study.trial import drop_unbuildable, drop_unmeasured, run_trial
from nas.terminal.errors import UserError
from nas.terminal.parser import SEEDS
from search_spaces import DecoderConfig, LatentSpec, SearchSpace, warm_starts

STUDY_NAME = "search"
MAX_ATTEMPTS = 3
"""How often a proposal is tried that was cut off (by a kill, not by an error)."""
_MOST_UNMEASURED = 10
"""Proposals in a row that the device may fail to run."""

Ending = Literal["trials", "time", "nothing new"]
"""Why a study ended: all candidates were trained, the time was over, or proposals gave nothing new to train."""


@dataclass(frozen=True)
class StudyLimits:
    """When a study ends."""

    trials: int
    """Candidates to train, over the whole life of the study; proposals that are not trained do not count."""
    seconds: float | None = None
    """Seconds after which no new candidate is started in this process; None: no limit."""
    fruitless: int = 100
    """Proposals in a row that may give nothing to train (over budget, not exportable, known before)."""


class BudgetUnreachableError(Exception):
    """Nothing that was proposed met the constraints."""

    def __init__(self, found: Sequence[Outcome], constraints: Sequence[Constraint]) -> None:
        def worst(outcome: Outcome) -> tuple[Constraint, float]:
            values = outcome.costs.values()
            constraint = most_violated(constraints, values)
            return constraint, values[constraint.name]

        def violation(outcome: Outcome) -> float:
            constraint, value = worst(outcome)
            return constraint.violation(value)

        self.closest = min(found, key=violation)
        """The proposal whose largest violation is the least: with one constraint on latency the fastest one."""
        self.constraint, self.value = worst(self.closest)
        """The constraint that it violates most, and its value."""
        super().__init__(f"the closest of all proposals has {self.constraint.describe_value(self.value)}")


def open_study(
    storage_url: str | sqlalchemy.URL,
    seed: int,
    *,
    warmup_steps: int,
    on_given_up: Callable[[int, str], None] = lambda number, decoder: None,
) -> optuna.Study:
    """The study in this database, made if it is not there; proposals that were cut off are queued again.

    Args:
        storage_url: SQLAlchemy URL of the database.
        seed: random seed of the sampler.
        warmup_steps: distillation steps before which no candidate is pruned.
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
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=warmup_steps),
        load_if_exists=True,
    )
    with _without_experimental_warnings():
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


def run_study(
    study: optuna.Study,
    space: SearchSpace,
    latents: LatentSpec,
    constraints: Sequence[Constraint],
    limits: StudyLimits,
    make_candidate: MakeCandidate,
    on_outcome: Callable[[Outcome], None],
    on_unmeasured: Callable[[DecoderConfig, str], None] = lambda config, reason: None,
    on_unbuildable: Callable[[DecoderConfig, str], None] = lambda config, reason: None,
) -> Ending:
    """Propose, measure and score until a limit is reached; every outcome is in the database before the next proposal.

    A decoder that the device cannot run has no outcome: it is reported with the reason, and not proposed for training.
    One with a part that cannot be built is left out likewise.

    Raises:
        BudgetUnreachableError: nothing within the constraints was found.
        UserError: the device ran none of the last ten proposals, `limits.fruitless` in a row cannot be built, or
            nothing within the constraints can be exported.
    """
    unmeasured = unbuildable = 0
    deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
    if not study.user_attrs.get("warm_started"):
        _enqueue_warm_starts(study, space, latents, constraints, make_candidate)
        study.set_user_attr("warm_started", True)
    while trained_count(study) < limits.trials:
        if deadline is not None and time.monotonic() >= deadline:
            return "time"
        trial, config = _propose(study, space, latents)
        try:
            on_outcome(run_trial(study, trial, make_candidate(config), constraints))
            unmeasured = unbuildable = 0
        except NotBuildableError as error:
            drop_unbuildable(study, trial, config, str(error))
            on_unbuildable(config, str(error))
            unbuildable += 1
            if unbuildable == limits.fruitless:
                raise UserError(f"none of the last {unbuildable} decoders can be built: {error}") from error
        except MeasurementFailedError as error:
            drop_unmeasured(study, trial, config, str(error))
            on_unmeasured(config, str(error))
            unmeasured += 1
            if unmeasured == _MOST_UNMEASURED:
                raise UserError(f"the device ran none of the last {unmeasured} decoders: {error}") from error
        if _nothing_new(study, limits, constraints):
            return "nothing new"
    return "trials"


def _enqueue_warm_starts(
    study: optuna.Study,
    space: SearchSpace,
    latents: LatentSpec,
    constraints: Sequence[Constraint],
    make_candidate: MakeCandidate,
) -> None:
    """Queue the published designs with the costs that were found in choosing their widths."""
    found: dict[DecoderConfig, Costs] = {}

    def fits(config: DecoderConfig) -> bool:
        try:
            found[config] = make_candidate(config).costs
        except (MeasurementFailedError, NotBuildableError):
            return False
        return all_met(constraints, found[config].values())

    for title, config in warm_starts(space, latents, fits):
        known: dict[str, Any] = {"preset": title}
        if config in found:
            known |= {"digest": config.digest(), **found[config].to_dict()}
        study.enqueue_trial(space.params(config), user_attrs=known, skip_if_exists=True)


def _propose(study: optuna.Study, space: SearchSpace, latents: LatentSpec) -> tuple[optuna.Trial, DecoderConfig]:
    """The next proposal; UserError if the choices in the study are not those of the space."""
    with _without_experimental_warnings():
        trial = study.ask()
        try:
            return trial, space.suggest(trial, latents)
        except ValueError as error:
            raise UserError(
                f"the study does not fit the space '{space.name}' ({error}): start a new run with another --run"
            ) from error


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


def _nothing_new(study: optuna.Study, limits: StudyLimits, constraints: Sequence[Constraint]) -> bool:
    """Whether none of the last proposals was worth training.

    Raises:
        BudgetUnreachableError: no proposal ever met the constraints.
        UserError: no proposal that met them can be exported.
    """
    statuses = [status_of(trial) for trial in finished_trials(study)]
    last = statuses[-limits.fruitless :]
    if len(last) < limits.fruitless or not set(last).isdisjoint(TRAINED):
        return False
    if not set(statuses).isdisjoint(TRAINED):
        return True
    found = read_outcomes(study)
    if unfit := [outcome.detail for outcome in found if outcome.status == "not exportable"]:
        raise UserError(f"nothing within the budget can be exported: {unfit[0]}: choose another --space")
    raise BudgetUnreachableError(found, constraints)


@contextmanager
def _without_experimental_warnings() -> Iterator[None]:
    """Optuna calls the grouped search space experimental; there is nothing that a user could do about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
