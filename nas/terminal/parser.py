"""What all commands share: argument parsing with one-line errors, and exit statuses.

0 done; 2 wrong arguments or input; 3 no candidate met the budget; 130 interrupted; 141 the output is read no more.
"""

import argparse
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nas.terminal.disk_reasons import disk_reason
from nas.terminal.errors import UserError, one_line
from nas.terminal.extras import missing_extra
from nas.terminal.memory_reasons import is_out_of_memory

SEEDS = 2**32
"""Number of seeds that every source of random numbers takes, from 0 on."""
_LARGEST = 2**31 - 1
"""Largest number of anything."""
_PASSWORD = re.compile(r"(://[^/@:\s]+):[^/@\s]*(?=@)")
"""A password in an address, after the user's name."""


class NothingFeasibleError(Exception):
    """No candidate met the latency budget; the message names the fastest one."""


class Parser(argparse.ArgumentParser):
    """ArgumentParser without abbreviations whose errors are one line."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=" ".join(command_words(prog)),
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_plugin_option(self) -> None:
        """Add `--plugin MODULE`, for commands that build decoders or open teachers; see `nas.machine.plugins`."""
        text = "module with blocks, teachers or spaces of your own; may be repeated"
        self.add_argument("--plugin", action="append", default=[], metavar="MODULE", help=text)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, except that a value such as -5ms is not taken for an unknown option."""
        joined: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if re.match(r"-\.?\d", word) and joined and re.fullmatch(r"--[\w-]+", joined[-1]):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_args(joined, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with exit status 2."""
        self.exit(2, f"error: {one_line(message)} (see {self.prog} --help)\n")


class SubcommandParser(Parser):
    """Parser of one of several commands in a module; argparse names it after the whole program."""

    def __init__(self, prog: str, description: str, **_: object) -> None:
        super().__init__("", description)
        self.prog = prog


def positive_int(text: str) -> int:
    """Argument type: a whole number from 1 to 2^31 - 1.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    value = _whole_number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {_shortened(text)}")
    if value > _LARGEST:
        raise argparse.ArgumentTypeError(f"expected at most {_LARGEST}, got {_shortened(text)}")
    return value


def seed_number(text: str) -> int:
    """Argument type: a seed that every source of random numbers takes, a whole number from 0 to 2^32 - 1.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    value = _whole_number(text)
    if not 0 <= value < SEEDS:
        raise argparse.ArgumentTypeError(f"expected a seed from 0 to {SEEDS - 1}, got {_shortened(text)}")
    return value


def decibels(text: str) -> float:
    """Argument type: a difference in dB, a number from 0 to 100.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    try:
        value = float(text.lower().removesuffix("db"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number of dB, got '{_shortened(text)}'") from error
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number of dB from 0 to 100, got {_shortened(text)}")
    return value


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{_shortened(text)}'") from error


def parse_resolution(text: str) -> tuple[int, int]:
    """Height and width in pixels that `HEIGHTxWIDTH` says.

    Raises:
        UserError: the text is something else.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.strip().lower())
    if not found:
        raise UserError(f"expected a resolution HEIGHTxWIDTH such as 512x512 or 720x1280, got '{_shortened(text)}'")
    sides = found[1], found[2]
    if max(map(len, sides)) > 6:
        raise UserError(f"expected a resolution of at most 999999 pixels a side, got '{_shortened(text)}'")
    return int(sides[0]), int(sides[1])


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def launcher_words() -> list[str]:
    """How the list of commands is started: by the installed `turbo-vaed`, or else by `python -m nas`."""
    return ["turbo-vaed"] if Path(sys.argv[0]).stem == "turbo-vaed" else ["python", "-m", "nas"]


def command_words(module: str) -> list[str]:
    """How the command `nas.NAME` is started: in the way in which this process was, by default `python -m nas.NAME`."""
    started = Path(sys.argv[0])
    if started.stem == "turbo-vaed" or started.parts[-2:] == ("nas", "__main__.py"):
        return [*launcher_words(), module.removeprefix("nas.")]
    return ["python", "-m", module]


def command_line(module: str, argv: Sequence[str] | None = None) -> str:
    """What was typed to start the command `nas.NAME`, to be printed: without the passwords of addresses.

    Args:
        module: `nas.NAME`.
        argv: its arguments; None: those of this process.
    """
    typed = [_PASSWORD.sub(r"\1", word) for word in (sys.argv[1:] if argv is None else argv)]
    return shlex.join([*command_words(module), *typed])


def _prepare_output(*, is_long: bool) -> None:
    # A file's name may hold what the terminal has no character for: that is shown as \udcff, say.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if is_long and sys.stdout.isatty():
        print("starting", end="\r", flush=True)  # torch takes seconds to load; what is printed first takes its place


def run_command(run: Callable[[], None], continue_with: str | None) -> int:
    """Run a command and return its exit status; its expected errors become one line on stderr.

    Args:
        run: what the command does.
        continue_with: command line that goes on after an interruption; None for a command that begins anew.
    """
    _prepare_output(is_long=continue_with is not None)
    try:
        run()
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        line = missing_extra(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    except NothingFeasibleError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        saved = f"everything up to here is saved; to continue: {continue_with}"
        print(
            f"\ninterrupted, {saved if continue_with else 'it was not done; the next time it begins anew'}",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; without this the interpreter complains when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        line = _of_the_machine(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def _of_the_machine(error: Exception) -> str | None:
    """What disk or memory refused, in one line; None if the error is about something else."""
    if is_out_of_memory(error):
        return f"memory has run out: {one_line(str(error))}: end what else uses it, or use a larger machine"
    found = disk_reason(error)
    return None if found is None else f"{getattr(error, 'filename', None) or error}: {': '.join(found)}"
