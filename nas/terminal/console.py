"""Output of the commands: a live display on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

_LABEL_WIDTH = 10
"""Characters of the label that begins a line, with the spaces after it."""

_PLAIN_INTERVAL = 10.0
"""Seconds between two progress lines where nothing can be redrawn."""

_STATUS_INTERVAL = 30.0
"""Seconds between two lines about a trial in progress where nothing can be redrawn."""

_TICK = 5.0
"""Seconds between two looks at whether something has to be printed."""


class Advance(Protocol):
    """Function that is told how far something is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Note that `done` of `total` items are done, and what else there is to say in a few words."""


class _Console(Console):
    """A console whose command decides how it ends when its reader has gone; rich alone ends it with status 1."""

    def on_broken_pipe(self) -> None:
        """Called by rich in place of the error."""
        raise BrokenPipeError


def make_console() -> Console:
    """Console on standard output; where it is not a terminal, lines are not wrapped."""
    console = _Console(highlight=False)
    return console if console.is_terminal else _Console(highlight=False, width=1000)


def say(console: Console, label: str, text: str) -> None:
    """Print one line of the header or footer: `label     text`."""
    console.print(f"[bold]{label:<{_LABEL_WIDTH}}[/]{escape(text)}", soft_wrap=True)


def warn(console: Console, text: str) -> None:
    """Print a warning as one line."""
    console.print(f"[yellow]{'warning':<{_LABEL_WIDTH}}[/]{escape(text)}", soft_wrap=True)


@contextmanager
def progress(console: Console, label: str, detail: str = "") -> Iterator[Advance]:
    """A progress bar with the time left, which vanishes at the end; off a terminal a line every ten seconds."""
    if console.is_terminal:
        columns = (TextColumn(f"[bold]{label:<{_LABEL_WIDTH}}[/]"), BarColumn(24), TaskProgressColumn())
        more = (TimeRemainingColumn(), TextColumn(detail), TextColumn("[dim]{task.fields[note]}"))
        with Progress(*columns, *more, console=console, transient=True) as bar:
            task = bar.add_task("", total=None, note="")

            def advance(done: int, total: int, note: str = "") -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield advance
        return
    plain = PlainProgress(console, label, detail)
    with _now_and_then(plain.remind):
        yield plain


@contextmanager
def _now_and_then(call: Callable[[], None]) -> Iterator[None]:
    """Call a function every few seconds while the `with` lasts: what takes long must not be silent."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(_TICK):
            try:
                call()
            except BrokenPipeError:
                # The command finds out when it prints the next time, and ends as it should.
                return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class PlainProgress:
    """Progress as lines: nothing for what takes less than ten seconds, then one line every ten seconds."""

    def __init__(self, console: Console, label: str, detail: str = "") -> None:
        self._console = console
        self._label = label
        self._detail = detail
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Note that `done` of `total` items are done; print a line if ten seconds have passed since the last."""
        now = time.monotonic()
        if now - self._last < _PLAIN_INTERVAL or done == 0:
            return
        self._last = now
        left = (now - self._started) / done * (total - done)
        text = f"{100 * done // total:3d}%, {format_seconds(left)} left{f', {note}' if note else ''}"
        say(self._console, self._label, f"{self._detail} {text}" if self._detail else text)

    def remind(self) -> None:
        """Print a line if nothing was printed for half a minute."""
        now = time.monotonic()
        if now - self._last >= _STATUS_INTERVAL:
            self._last = now
            text = f"still working, {format_seconds(now - self._started)} so far"
            say(self._console, self._label, f"{self._detail}: {text}" if self._detail else text)


class StatusLine:
    """One line that is redrawn under what is printed while the `with` lasts; off a terminal a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(Text(""), console=console, transient=True, refresh_per_second=4)
        self._last = time.monotonic()
        self._text = ""
        self._shown: AbstractContextManager[object] = nullcontext()

    def __enter__(self) -> "StatusLine":
        self._shown = self._live if self._console.is_terminal else _now_and_then(self._remind)
        self._shown.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.__exit__(None, None, None)

    def show(self, text: str) -> None:
        """Replace the text of the line."""
        if self._console.is_terminal:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis", style="cyan"))
        else:
            self._text = text
            self._remind()

    def _remind(self) -> None:
        if self._text and time.monotonic() - self._last >= _STATUS_INTERVAL:
            self._last = time.monotonic()
            self._console.print(escape(self._text), soft_wrap=True)


def format_seconds(seconds: float) -> str:
    """A duration in words: `8 s`, `4 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_count(count: float) -> str:
    """A number of things in words: `950`, `40.70 M`, `2.10 G`, `2.1e19`."""
    if count < 1e5:
        return f"{count:.0f}"
    for scale, unit in ((1e6, "M"), (1e9, "G")):
        # Compared as it is shown, or 999.999 M would be written 1000.00 M.
        if round(count / scale, 2) < 1000:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.1e}".replace("e+", "e")


def format_bytes(count: int) -> str:
    """A number of bytes in words: `120 MB`, `3.4 GB` (powers of ten)."""
    return f"{count / 1e6:.0f} MB" if round(count / 1e6) < 1000 else f"{count / 1e9:.1f} GB"


def format_some(items: Sequence[str], most: int = 3) -> str:
    """The first of some things: `a, b, c and 4 more`."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}"
