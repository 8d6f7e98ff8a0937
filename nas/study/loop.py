"""The loop of a search: proposals are asked for, trained by a pool, and the study is told what became of them.

A proposal over the budget, or one that cannot be exported, is never trained. Others are trained rung by rung, and stop
where they fall behind. Latency is a constraint of the study, so the sampler learns where the budget ends. Workers train
and nothing else: the loop alone talks to the database.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from blocks import NotBuildableError
from nas.latency.record import MeasurementFailedError
from nas.proposals.budget import Budget
from nas.study.candidate import MakeCandidate
from nas.study.constraints import Constraint
from nas.study.limits import Ending, StudyLimits, nothing_new
from nas.study.outcomes import Outcome, trained_count
from nas.study.peers import NoPeers, Peers
from nas.study.proposals import PublishedDesigns, propose
from nas.study.retries import REPEATS, running_numbers
from nas.study.rungs import next_rung, rungs
from nas.study.trial import Training, advance_trial, begin_trial, drop_unbuildable, drop_unmeasured, end_trial
from nas.terminal.errors import UserError
from nas.workers.job import Segment
from nas.workers.pool import Pool, WorkerDiedError
from search_spaces import DecoderConfig, LatentSpec, SearchSpace

Propose = Callable[[], tuple[optuna.Trial, DecoderConfig]]
"""Asks for a proposal."""

_MOST_UNMEASURED = 10
"""Proposals in a row that the device may fail to run."""
_TICK_S = 0.5
"""Seconds between two looks at what is going on, while jobs run."""
_WAIT_S = 2.0
"""Seconds between two looks at whether other searches have trained what is left to train."""


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
    on_lost: Callable[[int], None] = lambda number: None
    """A trial was given to another search, since this one could not be heard for too long."""


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
    peers: Peers | None = None,
    budget: Budget | None = None,
) -> Ending:
    """Propose, measure and score until a limit is reached; every outcome is in the database before it is told.

    Searches that share the study share its limits: together they train as many candidates as one alone.

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
        peers: the other searches that work on the study; None if there are none.
        budget: what is known of the latency budget before a trial, so that no time goes into published designs over it.

    Raises:
        BudgetUnreachableError: nothing within the constraints was found.
        UserError: the device ran none of the last ten proposals, `limits.fruitless` in a row cannot be built, or
            nothing within the constraints can be exported.
    """
    peers = peers or NoPeers()
    published = PublishedDesigns(study, space, latents, constraints, make_candidate, budget)

    def next_proposal() -> tuple[optuna.Trial, DecoderConfig]:
        published.queue_next()
        return propose(study, space, latents)

    loop = _Loop(study, constraints, limits, pool, rungs(steps), events, peers, published.find_next)
    return loop.run(next_proposal, make_candidate, measured_here)


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
        peers: Peers,
        prepare: Callable[[], None],
    ) -> None:
        self._study = study
        self._constraints = constraints
        self._limits = limits
        self._pool = pool
        self._rungs = steps
        self._events = events
        self._peers = peers
        self._prepare = prepare
        self._running: dict[Future[Segment], Training] = {}
        self._proposals = self._unmeasured = self._unbuildable = 0
        self._deadline = None if limits.seconds is None else limits.clock() + limits.seconds

    def run(self, propose: Propose, make_candidate: MakeCandidate, measured_here: bool) -> Ending:
        """Until a limit is reached and all that was begun has ended, by other searches, too."""
        while True:
            ending = self._fill(propose, make_candidate, measured_here)
            if self._running:
                self._advance()
            elif ending == "trials" and trained_count(self._study) < self._limits.trials:
                # Others train what is left; if they die, it is for this one to do.
                time.sleep(_WAIT_S)
                self._tick()
            elif ending is not None:
                return ending

    def _fill(self, propose: Propose, make_candidate: MakeCandidate, measured_here: bool) -> Ending | None:
        """Begin as many candidates as there is room for; why no more will be begun, or None if more will be."""
        ready: list[Training] = []
        ending: Ending | None = None
        # Beside a measurement nothing runs: then all that run are waited for, and as many are measured at once.
        while len(self._running) + len(ready) < self._pool.slots and not (measured_here and self._running):
            asked = self._ask(propose)
            if isinstance(asked, str):
                ending = asked
                break
            training = None if asked is None else self._begin(*asked, make_candidate)
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

    def _ask(self, propose: Propose) -> tuple[optuna.Trial, DecoderConfig] | Ending | None:
        """The next proposal, or why there is none; None if another search may have taken its place meanwhile."""
        if self._over() is None:
            self._prepare()  # what takes a while is not for a turn, which others wait for
        with self._peers.turn() as held:
            ending = self._over()
            if ending is not None:
                return ending
            trial, config = propose()
            self._proposals += 1
            self._peers.begin(trial)
            trial.set_user_attr("digest", config.digest())
            if held():
                return trial, config
        self._peers.end(trial.number)
        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)  # which queues it again
        return None

    def _over(self) -> Ending | None:
        if trained_count(self._study) + len(running_numbers(self._study)) >= self._limits.trials:
            return "trials"
        if self._deadline is not None and self._limits.clock() >= self._deadline:
            return "time"
        return "nothing new" if self._proposals and nothing_new(self._study, self._limits, self._constraints) else None

    def _begin(self, trial: optuna.Trial, config: DecoderConfig, make_candidate: MakeCandidate) -> Training | None:
        """A candidate that is worth training; None if it is not, which the study knows then."""
        begun: Training | None = None
        try:
            begun = self._try(trial, config, make_candidate)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._events.on_lost(trial.number)
        if begun is None:
            self._peers.end(trial.number)
        return begun

    def _try(self, trial: optuna.Trial, config: DecoderConfig, make_candidate: MakeCandidate) -> Training | None:
        if (twin := self._running_twin(trial, config)) is not None:
            # Two proposals at a time may be one decoder; the sampler has seen neither of them.
            trial.set_user_attr(REPEATS, twin)
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
        begun.candidate.record(trial.number, Segment(()))
        return begun

    def _running_twin(self, trial: optuna.Trial, config: DecoderConfig) -> int | None:
        """The earlier trial of the same architecture that is in progress, here or elsewhere."""
        digest = config.digest()
        for other in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if other.number < trial.number and other.user_attrs.get("digest") == digest:
                return other.number
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
            try:
                outcome = self._take(training, future)
            except optuna.exceptions.UpdateFinishedTrialError:
                self._peers.end(training.trial.number)
                self._events.on_lost(training.trial.number)
                continue
            if outcome is None:
                self._submit(training)
            else:
                self._peers.end(training.trial.number)
                self._events.on_outcome(outcome)

    def _take(self, training: Training, future: Future[Segment]) -> Outcome | None:
        try:
            segment = future.result()
        except WorkerDiedError as error:
            return end_trial(self._study, training, "failed", TrialState.PRUNED, detail=str(error))
        return advance_trial(self._study, training, segment, self._rungs[-1])

    def _tick(self) -> None:
        self._peers.check()
        self._events.on_tick({training.trial.number: training.steps for training in self._running.values()})
