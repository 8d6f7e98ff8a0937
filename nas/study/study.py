"""The Optuna study: what is proposed, what a proposal costs and scores, what is kept.

A proposal over the budget, or one that cannot be exported, is never trained. Others get a short distillation, pruned if
they fall behind, and a score. Latency is a constraint of the study, so the sampler learns where the budget ends.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.distillation import DivergedError
from nas.latency import LatencyRecord
from nas.latency.record import MeasurementFailedError
from nas.study.outcomes import TRAINED, Kind, Outcome
from nas.study.storage import open_storage
from nas.terminal.errors import UserError
from search_spaces import DecoderConfig, LatentSpec, SearchSpace, warm_starts

STUDY_NAME = "search"
_MAX_ATTEMPTS = 3
"""How often a proposal is tried that was cut off (by a kill, not by an error)."""
_MOST_UNMEASURED = 10
"""Proposals in a row that the device may fail to run."""


class Evaluator(Protocol):
    """What the study asks about a proposal."""

    def latency(self, config: DecoderConfig) -> LatencyRecord:
        """Latency on the device that the budget is for; `MeasurementFailedError` if it cannot run the decoder."""

    def parameters(self, config: DecoderConfig) -> int:
        """Number of parameters."""

    def obstacle(self, config: DecoderConfig) -> str:
        """Why the decoder cannot be exported; empty if it can."""

    def score(self, number: int, config: DecoderConfig, report: Callable[[int, float], None]) -> float:
        """PSNR in dB after a short distillation; `report(step, dB)` on the way may raise `optuna.TrialPruned`."""


@dataclass(frozen=True)
class StudyLimits:
    """When a study ends."""

    trials: int
    """Candidates to train, over the whole life of the study; proposals over budget do not count."""
    seconds: float | None = None
    """No new candidate is started after this long in this process."""
    hopeless: int = 100
    """Give up when so many proposals were over budget and none was within it."""


class BudgetUnreachableError(Exception):
    """Nothing that was proposed met the budget."""

    def __init__(self, fastest: Outcome) -> None:
        super().__init__(f"the fastest of all proposals takes {fastest.latency.describe()}")
        self.fastest = fastest
        """The fastest proposal."""


def open_study(storage_url: str, seed: int, *, warmup_steps: int) -> optuna.Study:
    """The study in this database, made if it is not there; proposals that were cut off are queued again.

    Args:
        storage_url: of the database.
        seed: of the sampler.
        warmup_steps: distillation steps before which no candidate is pruned.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=open_storage(storage_url),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=warmup_steps),
        load_if_exists=True,
    )
    with _without_experimental_warnings():
        # Another stream of random numbers after every resume, or the same proposals would come again.
        seed += len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
    _requeue_interrupted(study)
    return study


def load_study(storage_url: str) -> optuna.Study:
    """The study in this database, to read; UserError if there is none yet."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=STUDY_NAME, storage=open_storage(storage_url))
    except KeyError as error:
        raise UserError(f"{storage_url} holds no study yet: run the same python -m nas.search again first") from error


def run_study(
    study: optuna.Study,
    space: SearchSpace,
    latents: LatentSpec,
    budget_ms: float,
    limits: StudyLimits,
    evaluator: Evaluator,
    on_outcome: Callable[[Outcome], None],
    on_unmeasured: Callable[[DecoderConfig, str], None] = lambda config, reason: None,
) -> None:
    """Propose, measure and score until a limit is reached; every outcome is in the database before the next proposal.

    A decoder that the device cannot run is no outcome: it is reported with the reason, and not proposed for training.

    Raises:
        BudgetUnreachableError: nothing within the budget was found.
        UserError: the device ran none of the last ten proposals.
    """
    unmeasured = 0
    deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
    if not study.user_attrs.get("seeded"):
        _enqueue_seeds(study, space, latents, budget_ms, evaluator)
        study.set_user_attr("seeded", True)
    while trained_count(study) < limits.trials and (deadline is None or time.monotonic() < deadline):
        with _without_experimental_warnings():
            trial = study.ask()
            config = space.suggest(trial, latents)
        try:
            on_outcome(_run_trial(study, trial, config, budget_ms, evaluator))
            unmeasured = 0
        except MeasurementFailedError as error:
            _drop_unmeasured(study, trial, config, str(error))
            on_unmeasured(config, str(error))
            unmeasured += 1
            if unmeasured == _MOST_UNMEASURED:
                raise UserError(f"the device ran none of the last {unmeasured} decoders: {error}") from error
        _give_up_if_hopeless(study, limits)


def read_outcomes(study: optuna.Study) -> list[Outcome]:
    """What became of every finished proposal of a study, in order."""
    return [
        Outcome(
            number=trial.number,
            config=DecoderConfig.from_dict(trial.user_attrs["config"]),
            latency=LatencyRecord.from_dict(trial.user_attrs["latency"]),
            parameters=trial.user_attrs["parameters"],
            kind=_kind(trial),
            score=trial.user_attrs["score"],
            detail=trial.user_attrs["detail"],
            preset=trial.user_attrs.get("preset", ""),
        )
        for trial in _finished(study)
    ]


def trained_count(study: optuna.Study) -> int:
    """Candidates that were trained, pruned ones included."""
    return sum(_kind(trial) in TRAINED for trial in _finished(study))


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, config: DecoderConfig, budget_ms: float, evaluator: Evaluator
) -> Outcome:
    latency, parameters = _known_latency(study, config, evaluator), evaluator.parameters(config)
    known = {"config": config.to_dict(), "digest": config.digest(), "latency": latency.to_dict()}
    for key, value in {**known, "parameters": parameters}.items():
        trial.set_user_attr(key, value)
    trial.set_constraint("latency", (latency.ms_per_frame - budget_ms) / budget_ms)
    twin = _finished_twin(study, config)
    kind: Kind
    detail, score = "", None
    if latency.ms_per_frame > budget_ms:
        kind, state = "over budget", TrialState.PRUNED
    elif twin is not None:
        kind, state, score, detail = "same", twin.state, twin.user_attrs["score"], f"as #{twin.number}"
    elif obstacle := evaluator.obstacle(config):
        kind, state, detail = "not exportable", TrialState.PRUNED, obstacle
    else:
        kind, state, score, detail = _train(trial, config, evaluator)
    for key, value in {"kind": kind, "score": score, "detail": detail}.items():
        trial.set_user_attr(key, value)
    study.tell(trial, score if state == TrialState.COMPLETE else None, state)
    preset = str(trial.user_attrs.get("preset", ""))
    return Outcome(trial.number, config, latency, parameters, kind, score, detail, preset)


def _train(
    trial: optuna.Trial, config: DecoderConfig, evaluator: Evaluator
) -> tuple[Kind, TrialState, float | None, str]:
    """How it ended, its state for Optuna, its score in dB, and why it failed."""
    last: list[float] = []

    def report(step: int, score: float) -> None:
        last.append(score)
        trial.report(score, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        score = evaluator.score(trial.number, config, report)
    except optuna.TrialPruned:
        return "pruned", TrialState.PRUNED, last[-1], ""
    except DivergedError as error:
        return "failed", TrialState.FAIL, None, str(error)
    return "scored", TrialState.COMPLETE, score, ""


def _known_latency(study: optuna.Study, config: DecoderConfig, evaluator: Evaluator) -> LatencyRecord:
    """A decoder is measured once; an equal one takes that number, or that failure."""
    digest = config.digest()
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("digest") != digest:
            continue
        if "latency" in trial.user_attrs:
            return LatencyRecord.from_dict(trial.user_attrs["latency"])
        if "unmeasured" in trial.user_attrs:
            raise MeasurementFailedError(trial.user_attrs["unmeasured"])
    return evaluator.latency(config)


def _enqueue_seeds(
    study: optuna.Study, space: SearchSpace, latents: LatentSpec, budget_ms: float, evaluator: Evaluator
) -> None:
    """Queue the published designs with the latencies that were found in choosing their widths."""
    found: dict[DecoderConfig, LatencyRecord] = {}

    def fits(config: DecoderConfig) -> bool:
        try:
            found[config] = evaluator.latency(config)
        except MeasurementFailedError:
            return False
        return found[config].ms_per_frame <= budget_ms

    for title, config in warm_starts(space, latents, fits):
        known: dict[str, Any] = {"preset": title}
        if config in found:
            known |= {"digest": config.digest(), "latency": found[config].to_dict()}
        study.enqueue_trial(space.params(config), user_attrs=known, skip_if_exists=True)


def _drop_unmeasured(study: optuna.Study, trial: optuna.Trial, config: DecoderConfig, reason: str) -> None:
    for key, value in {"digest": config.digest(), "unmeasured": reason}.items():
        trial.set_user_attr(key, value)
    study.tell(trial, state=TrialState.FAIL)


def _finished_twin(study: optuna.Study, config: DecoderConfig) -> FrozenTrial | None:
    digest = config.digest()
    twins = (trial for trial in _finished(study) if trial.user_attrs["digest"] == digest)
    return next((trial for trial in twins if _kind(trial) in ("scored", "pruned")), None)


def _requeue_interrupted(study: optuna.Study) -> None:
    """A trial that is still running when nobody works on the study was cut off: fail it and queue its choices again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        attempt = int(trial.user_attrs.get("attempt", 1))
        study.tell(trial.number, state=TrialState.FAIL)
        if attempt < _MAX_ATTEMPTS:
            attrs = {"retry_of": trial.number, "attempt": attempt + 1}
            if "preset" in trial.user_attrs:
                attrs["preset"] = trial.user_attrs["preset"]
            study.enqueue_trial(trial.params, user_attrs=attrs)


def _give_up_if_hopeless(study: optuna.Study, limits: StudyLimits) -> None:
    finished = _finished(study)
    if len(finished) < limits.hopeless or {_kind(trial) for trial in finished} - {"over budget", "not exportable"}:
        return
    found = read_outcomes(study)
    if unfit := [outcome.detail for outcome in found if outcome.kind == "not exportable"]:
        raise UserError(f"nothing within the budget can be exported: {unfit[0]}: choose another --space")
    raise BudgetUnreachableError(min(found, key=lambda outcome: outcome.latency.ms_per_frame))


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and "kind" in trial.user_attrs
    ]


def _kind(trial: FrozenTrial) -> Kind:
    return cast(Kind, trial.user_attrs["kind"])


@contextmanager
def _without_experimental_warnings() -> Iterator[None]:
    """Optuna calls the grouped search space experimental; there is nothing that a user could do about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
