"""What a search prints while it runs and when it ends: enough digits, true counts, no minute of silence."""

import threading
from typing import Any

import pytest

from nas.latency.budget import format_ms
from nas.study.limits import StudyLimits
from nas.study.table import TrialTable
from nas.terminal.console import StatusLine
from tests.terminal.test_console import outcome, plain_console, text_of


@pytest.mark.parametrize(
    ("milliseconds", "budget", "text"),
    [
        (21.74, 30.0, "21.7"),
        (0.304, 0.3, "0.304"),
        (30.004, 30.0, "30.004"),
        (29.96, 30.0, "30.0"),
        (0.28, 0.3, "0.28"),
        (0.0123, 1.0, "0.012"),
        (12345.6, 30.0, "12345.6"),
    ],
)
def test_a_latency_has_enough_digits(milliseconds: float, budget: float, text: str) -> None:
    assert format_ms(milliseconds, budget) == text


def test_more_were_trained_than_are_asked_for() -> None:
    console = plain_console()
    table = TrialTable(console, StudyLimits(2), StatusLine(console), trained=0)
    for number in range(4):
        table.add(outcome(number))
    assert table.counts() == "4 trained"


def test_what_takes_long_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a terminal a line comes again and again, though nobody calls for it."""
    monkeypatch.setattr("nas.terminal.console._TICK", 0.01)
    monkeypatch.setattr("nas.terminal.console._STATUS_INTERVAL", 0.05)
    console = plain_console()
    printed = threading.Event()
    real = console.print

    def note(*values: Any, **options: Any) -> None:
        real(*values, **options)
        printed.set()

    monkeypatch.setattr(console, "print", note)
    with StatusLine(console) as status:
        status.show("waiting for the latency of something")
        assert printed.wait(20)
    assert text_of(console).startswith("waiting for the latency of something\n")
