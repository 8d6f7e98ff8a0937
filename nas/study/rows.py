"""Rows of decoders: what became of each proposal, and the front."""

import math

from rich.console import Console
from rich.markup import escape

from nas.latency.budget import format_ms
from nas.study.outcomes import Outcome, pareto_front
from nas.terminal.console import format_count, say

_OTHER_COLUMNS = 4 + 10 + 10 + 30


class Rows:
    """Prints a row for each decoder that it is given, under a header.

    Args:
        console: where.
        budget_ms: latencies are written with as many digits as say on which side of it they are.
    """

    def __init__(self, console: Console, budget_ms: float = math.inf) -> None:
        self._console = console
        self._budget_ms = budget_ms
        self._name_width = max(24, min(72, console.width - _OTHER_COLUMNS))

    def header(self) -> None:
        """The line above the rows."""
        self._row("#", "decoder", "ms/frame", "params", "dB vs teacher", "bold")

    def outcome(self, outcome: Outcome, style: str) -> None:
        """The row of a proposal, in a style of rich."""
        name = f"{outcome.preset}: {outcome.config.summary()}" if outcome.preset else outcome.config.summary()
        latency = f"{format_ms(outcome.latency.ms_per_frame, self._budget_ms)}{mark(outcome)}"
        self._row(str(outcome.number), name, latency, format_count(outcome.parameters), _verdict(outcome), style)

    def _row(self, number: str, name: str, latency: str, parameters: str, verdict: str, style: str) -> None:
        if len(name) > self._name_width:
            name = name[: self._name_width - 2] + ".."
        line = f"{number:>3}  {name:<{self._name_width}} {latency:>9} {parameters:>9}   {verdict}"
        if self._console.is_terminal and len(line) > self._console.width:
            line = line[: self._console.width - 2] + ".."
        self._console.print(f"[{style}]{escape(line)}[/]" if style else escape(line), soft_wrap=True)


def print_front(
    console: Console, found: list[Outcome], budget_ms: float = math.inf, spread_db: float | None = None
) -> None:
    """What no other decoder beats in both latency and score, fastest first, a row each.

    Args:
        console: where.
        found: what became of the proposals.
        budget_ms: latencies are written with as many digits as say on which side of it they are.
        spread_db: standard deviation of a score over seeds, which is said below; None if it is not known.
    """
    front = pareto_front(found)
    which = f"{len(front)} decoders that no other beats" if len(front) > 1 else "one decoder that no other beats"
    say(console, "front", f"{which} in both latency and score")
    rows = Rows(console, budget_ms)
    rows.header()
    for outcome in front:
        rows.outcome(outcome, "green" if outcome is front[-1] else "")
    if spread_db is not None:
        what = f"two seeds of one decoder differ by about {2**0.5 * spread_db:.2f} dB: less than that says nothing"
        say(console, "spread", what)


def mark(outcome: Outcome) -> str:
    """A star for a latency that is predicted, nothing for a measured one."""
    return "*" if outcome.latency.kind == "predicted" else ""


def score_of(outcome: Outcome) -> float:
    """The score of an outcome that has one."""
    assert outcome.score is not None
    return outcome.score


def _verdict(outcome: Outcome) -> str:
    origin = f"   from {outcome.origin}" if outcome.origin else ""
    if outcome.status == "scored":
        return f"{score_of(outcome):.2f}{origin}"
    if outcome.status == "over budget":
        return f"over budget{f' ({outcome.detail})' if outcome.detail else ''}, not trained"
    if outcome.status == "pruned":
        return f"stopped early ({score_of(outcome):.2f}){origin}"
    if outcome.status == "not exportable":
        return f"not exportable, not trained: {outcome.detail}"
    return f"{outcome.status} {outcome.detail}"
