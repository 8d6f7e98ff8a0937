"""The other searches that work on the same study: there are none where its database is a file of the run folder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import optuna

from nas.study.retries import OnGivenUp, requeue, running_numbers
from nas.study.server import Heart, StudyServer

Held = Callable[[], bool]
"""Whether a turn was nobody else's until now."""


class Peers(Protocol):
    """What a search does about the others."""

    @property
    def any(self) -> bool:
        """Whether there may be others."""

    @contextmanager
    def turn(self) -> Iterator[Held]:
        """Do what only one may do at a time, until the end of the `with`; what the dead left is in the queue then."""

    def begin(self, trial: optuna.Trial) -> None:
        """This search works on a trial from now on."""

    def end(self, number: int) -> None:
        """This search works on a trial no more."""

    def check(self) -> None:
        """UserError if the others cannot hear this search any more."""


class NoPeers:
    """A search that is alone with its study."""

    any = False

    @contextmanager
    def turn(self) -> Iterator[Held]:
        """It is always its turn."""
        yield lambda: True

    def begin(self, trial: optuna.Trial) -> None:
        """Nobody wants to know."""

    def end(self, number: int) -> None:
        """Nobody wants to know."""

    def check(self) -> None:
        """There is nothing to check."""


class ServerPeers:
    """The searches that work on a study on a server."""

    any = True

    def __init__(self, server: StudyServer, study: optuna.Study, heart: Heart, on_given_up: OnGivenUp) -> None:
        """Join them.

        Args:
            server: where the study is.
            study: the study.
            heart: beats for this search.
            on_given_up: told of trials that this search finds cut off too often.
        """
        self._server, self._study, self._heart, self._on_given_up = server, study, heart, on_given_up
        self._next_look = 0.0

    @contextmanager
    def turn(self) -> Iterator[Held]:
        """Wait for a turn; now and then, the trials of searches that are silent are failed and queued again."""
        with self._server.turn(self._study.study_name) as turn:
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + self._server.beat_seconds
                running = running_numbers(self._study)
                self._heart.beat()  # on a machine that has been busy this search was silent itself
                self._server.fail_stale(self._study)
                requeue(self._study, running, self._on_given_up)
            yield turn.held

    def begin(self, trial: optuna.Trial) -> None:
        """Let the others hear that a trial is worked on."""
        self._heart.add(trial)

    def end(self, number: int) -> None:
        """Be silent about a trial."""
        self._heart.remove(number)

    def check(self) -> None:
        """UserError if the server did not answer for too long."""
        self._heart.check()
