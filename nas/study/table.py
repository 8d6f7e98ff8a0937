"""The table of trials that a search prints while it runs."""

import math
import time
from collections.abc import Mapping, Sequence

from rich.console import Console

from nas.latency.budget import format_ms
from nas.study.limits import StudyLimits
from nas.study.outcomes import TRAINED, Outcome
from nas.study.retries import MAX_ATTEMPTS
from nas.study.rows import Rows, mark, score_of
from nas.terminal.console import StatusLine, format_seconds, warn
from search_spaces import DecoderConfig


class TrialTable:
    """One row per proposal that says something new; the others are counted, published designs aside."""

    def __init__(
        self, console: Console, limits: StudyLimits, status: StatusLine, trained: int, budget_ms: float = math.inf
    ) -> None:
        self._console = console
        self._limits = limits
        self._status = status
        self._trained_before = self.trained = trained
        self._over_budget = self._known = 0
        self._best: Outcome | None = None
        self._reasons: set[str] = set()
        self._shown: set[int] = set()
        self._started = time.monotonic()
        self._rows = Rows(console, budget_ms)

    def header(self) -> None:
        """The line above the rows."""
        self._rows.header()

    def add(self, outcome: Outcome) -> None:
        """A proposal is finished."""
        if outcome.status in TRAINED:
            self.trained += 1
        self.replay(outcome)
        self.progress({}, 0)

    def catch_up(self, found: Sequence[Outcome]) -> None:
        """Proposals are finished, some of them by other searches that work on the study."""
        for outcome in found:
            if outcome.number not in self._shown:
                self.add(outcome)

    def lost(self, number: int) -> None:
        """A trial was given to another search."""
        warn(self._console, f"#{number} was given to another search: this one could not be heard for too long")

    def replay(self, outcome: Outcome) -> None:
        """Show a proposal that was finished before."""
        self._shown.add(outcome.number)
        self._over_budget += outcome.status == "over budget"
        self._known += outcome.status == "same"
        if outcome.status in ("over budget", "same") and not outcome.preset:
            return
        best = outcome.status == "scored" and (self._best is None or score_of(outcome) > score_of(self._best))
        if best:
            self._best = outcome
        self._rows.outcome(outcome, "green" if best else "" if outcome.status == "scored" else "dim")

    def take_over(self, outcome: Outcome) -> None:
        """A proposal was trained by an earlier run: that took no time here."""
        if outcome.status in TRAINED:
            self.trained += 1
            self._trained_before += 1
        self.replay(outcome)

    def unmeasured(self, config: DecoderConfig, reason: str) -> None:
        """A proposal could not be run on the device."""
        warn(self._console, f"left out, the device cannot run {config.summary()}: {reason}")

    def unbuildable(self, config: DecoderConfig, reason: str) -> None:
        """A proposal has a part that cannot be built for its place: said once for each part and place."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            warn(self._console, f"left out, {reason} (first in {config.summary()})")

    def counts(self) -> str:
        """What became of all proposals: "9 of 30 trained   41 over budget   2 proposed before"."""
        over_budget = f"   {self._over_budget} over budget" if self._over_budget else ""
        known = f"   {self._known} proposed before" if self._known else ""
        # A search may be continued with fewer trials than it has made.
        most = self._limits.trials
        trained = f"{self.trained} of {most} trained" if self.trained <= most else f"{self.trained} trained"
        return f"{trained}{over_budget}{known}"

    def waiting(self, config: DecoderConfig) -> None:
        """Say in the status line that the latency of a proposal is being found, which may take a while."""
        self._status.show(f"finding the latency of {config.summary()}")

    def given_up(self, number: int, decoder: str) -> None:
        """A trial was cut off so often that it is not tried again."""
        what = f"#{number} {decoder}".rstrip()
        warn(self._console, f"left out, {what}: it was cut off {MAX_ATTEMPTS} times (does it run out of memory?)")

    def progress(self, running: Mapping[int, int], steps: int) -> None:
        """Redraw the status line: the best so far, the trials that are trained, the time left.

        Args:
            running: steps done by each trial that is trained.
            steps: steps of a whole short distillation.
        """
        parts = []
        if self._best is not None:
            latency = f"{format_ms(self._best.latency.ms_per_frame)} ms/frame{mark(self._best)}"
            parts.append(f"best #{self._best.number}  {latency}  {score_of(self._best):.2f} dB")
        parts.append(self.counts())
        if running:
            trained = ", ".join(f"#{number} ({done}/{steps} steps)" for number, done in running.items())
            parts.append(f"training {trained}")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"{format_seconds(left)} left")
        self._status.show("   ".join(parts))

    def _seconds_left(self) -> float | None:
        spent = time.monotonic() - self._started
        done = self.trained - self._trained_before
        by_trials = spent / done * (self._limits.trials - self.trained) if done else None
        by_time = None if self._limits.seconds is None else max(0.0, self._limits.seconds - spent)
        known = [estimate for estimate in (by_trials, by_time) if estimate is not None]
        return min(known) if known else None
