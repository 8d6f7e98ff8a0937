"""The loop of a search: proposals are asked for, trained by a pool, and the study is told what became of them.

A proposal over the budget, or one that cannot be exported, is never trained. Others are trained rung by rung, and stop
where they fall behind. Latency is a constraint of the study, so the sampler learns where the budget ends. Workers train
and nothing else: the loop alone talks to the database.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from blocks import NotBuildableError
from nas.latency import LatencyRecord
from nas.latency.record import MeasurementFailedError
from nas.study.candidate import MakeCandidate, constrained_values
from nas.study.constraints import Constraint, all_met
from nas.study.limits import Ending, StudyLimits, nothing_new
from nas.study.outcomes import Outcome, trained_count
from nas.study.rungs import next_rung, rungs
from nas.study.study import without_experimental_warnings
from nas.study.trial import Training, advance_trial, begin_trial, drop_unbuildable, drop_unmeasured, end_training
from nas.terminal.errors import UserError
from nas.workers.job import Segment
from nas.workers.pool import Pool, WorkerDiedError
from search_spaces import DecoderConfig, LatentSpec, SearchSpace, warm_starts

_MOST_UNMEASURED = 10
"""Proposals in a row that the device may fail to run."""
_TICK_S = 0.5
"""Seconds between two looks at what is going on, while jobs run."""


@dataclass(frozen=True)
class Events:
    """Who is told what happens in a search."""

    on_outcome: Callable[[Outcome], None] = lambda outcome: None
    """A proposal has an outcome, which is in the database."""
    on_unmeasured: Callable[[DecoderConfig, str], None] = lambda config, reason: None
    """The device cannot run a decoder; it has no outcome."""
    on_unbuildable: Callable[[DecoderConfig, str], None] = lambda config, reason: None
    """A part of a decoder cannot be built for its place; it has no outcome."""
    on_tick: Callable[[dict[int, int]], None] = lambda running: None
    """Now and then: the trials that are trained, and the steps that each has done. What it raises ends the search."""


def run_study(
    study: optuna.Study,
    space: SearchSpace,
    latents: LatentSpec,
    constraints: Sequence[Constraint],
    limits: StudyLimits,
    make_candidate: MakeCandidate,
    pool: Pool,
    steps: int,
    events: Events,
    *,
    measured_here: bool = False,
) -> Ending:
    """Propose, measure and score until a limit is reached; every outcome is in the database before it is told.

    Args:
        study: where it is kept.
        space: what is proposed.
        latents: what the decoders decode.
        constraints: what a decoder may cost.
        limits: when it ends.
        make_candidate: makes a candidate of a proposal.
        pool: trains.
        steps: length of a short distillation.
        events: told what happens.
        measured_here: latency is measured where training runs: it is measured while nothing runs beside it.

    Raises:
        BudgetUnreachableError: nothing within the constraints was found.
        UserError: the device ran none of the last ten proposals, `limits.fruitless` in a row cannot be built, or
            nothing within the constraints can be exported.
    """
    if not study.user_attrs.get("warm_started"):
        _enqueue_warm_starts(study, space, latents, constraints, make_candidate)
        study.set_user_attr("warm_started", True)
    loop = _Loop(study, constraints, limits, pool, rungs(steps), events)

    def propose() -> Training | None:
        trial, config = _propose(study, space, latents)
        return loop.begin(trial, config, make_candidate)

    return loop.run(propose, measured_here)


class _Loop:
    """What runs at the moment, and what failed in a row."""

    def __init__(
        self,
        study: optuna.Study,
        constraints: Sequence[Constraint],
        limits: StudyLimits,
        pool: Pool,
        steps: Sequence[int],
        events: Events,
    ) -> None:
        self._study = study
        self._constraints = constraints
        self._limits = limits
        self._pool = pool
        self._rungs = steps
        self._events = events
        self._running: dict[Future[Segment], Training] = {}
        self._proposals = self._unmeasured = self._unbuildable = 0
        self._deadline = None if limits.seconds is None else time.monotonic() + limits.seconds

    def run(self, propose: Callable[[], Training | None], measured_here: bool) -> Ending:
        """Until a limit is reached and all that was begun has ended."""
        while True:
            ending = self._fill(propose, measured_here)
            if self._running:
                self._advance()
            elif ending is not None:
                return ending

    def begin(self, trial: optuna.Trial, config: DecoderConfig, make_candidate: MakeCandidate) -> Training | None:
        """A candidate that is worth training; None if it is not, which the study knows then."""
        if any(training.candidate.config == config for training in self._running.values()):
            # Two proposals at a time may be one decoder; the sampler has seen neither of them.
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        try:
            begun = begin_trial(self._study, trial, make_candidate(config), self._constraints)
        except NotBuildableError as error:
            drop_unbuildable(self._study, trial, config, str(error))
            self._events.on_unbuildable(config, str(error))
            self._unbuildable += 1
            if self._unbuildable == self._limits.fruitless:
                raise UserError(f"none of the last {self._unbuildable} decoders can be built: {error}") from error
            return None
        except MeasurementFailedError as error:
            drop_unmeasured(self._study, trial, config, str(error))
            self._events.on_unmeasured(config, str(error))
            self._unmeasured += 1
            if self._unmeasured == _MOST_UNMEASURED:
                raise UserError(f"the device ran none of the last {self._unmeasured} decoders: {error}") from error
            return None
        self._unmeasured = self._unbuildable = 0
        if isinstance(begun, Outcome):
            self._events.on_outcome(begun)
            return None
        return begun

    def _fill(self, propose: Callable[[], Training | None], measured_here: bool) -> Ending | None:
        """Begin as many candidates as there is room for; why no more will be begun, or None if more will be."""
        ready: list[Training] = []
        ending: Ending | None = None
        # Beside a measurement nothing runs: then all that run are waited for, and as many are measured at once.
        while len(self._running) + len(ready) < self._pool.slots and not (measured_here and self._running):
            ending = self._over(len(ready))
            if ending is not None:
                break
            if self._proposals and nothing_new(self._study, self._limits):
                ending = "nothing new"
                break
            training = propose()
            self._proposals += 1
            if training is not None and measured_here:
                ready.append(training)
            elif training is not None:
                self._submit(training)
            self._tick()
            if any(future.done() for future in self._running):
                break
        for training in ready:
            self._submit(training)
        return ending

    def _over(self, ready: int) -> Ending | None:
        if trained_count(self._study) + len(self._running) + ready >= self._limits.trials:
            return "trials"
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "time"
        return None

    def _submit(self, training: Training) -> None:
        work = training.candidate.work(next_rung(self._rungs, training.steps))
        self._running[self._pool.submit(work)] = training

    def _advance(self) -> None:
        """Wait until a job has ended, and go on with what it was about."""
        ended: set[Future[Segment]] = set()
        while not ended:
            ended, _ = wait(self._running, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            self._tick()
        for future in ended:
            training = self._running.pop(future)
            outcome = self._take(training, future)
            if outcome is None:
                self._submit(training)
            else:
                self._events.on_outcome(outcome)

    def _take(self, training: Training, future: Future[Segment]) -> Outcome | None:
        try:
            segment = future.result()
        except WorkerDiedError as error:
            return end_training(self._study, training, "failed", TrialState.PRUNED, detail=str(error))
        return advance_trial(self._study, training, segment, self._rungs[-1])

    def _tick(self) -> None:
        self._events.on_tick({training.trial.number: training.steps for training in self._running.values()})


def _enqueue_warm_starts(
    study: optuna.Study,
    space: SearchSpace,
    latents: LatentSpec,
    constraints: Sequence[Constraint],
    make_candidate: MakeCandidate,
) -> None:
    """Queue the published designs with the latencies that were found in choosing their widths."""
    found: dict[DecoderConfig, LatencyRecord] = {}

    def fits(config: DecoderConfig) -> bool:
        try:
            found[config] = make_candidate(config).latency
        except (MeasurementFailedError, NotBuildableError):
            return False
        return all_met(constraints, constrained_values(found[config]))

    for title, config in warm_starts(space, latents, fits):
        known: dict[str, Any] = {"preset": title}
        if config in found:
            known |= {"digest": config.digest(), "latency": found[config].to_dict()}
        study.enqueue_trial(space.params(config), user_attrs=known, skip_if_exists=True)


def _propose(study: optuna.Study, space: SearchSpace, latents: LatentSpec) -> tuple[optuna.Trial, DecoderConfig]:
    """The next proposal; UserError if the choices in the study are not those of the space."""
    with without_experimental_warnings():
        trial = study.ask()
        try:
            return trial, space.suggest(trial, latents)
        except ValueError as error:
            raise UserError(
                f"the study does not fit the space '{space.name}' ({error}): start a new run with another --run"
            ) from error
