"""The error that ends a command with one clear line and exit status 2."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Wrong arguments or input: one line that says what was wrong, what was expected, and what to do."""


def one_line(text: str) -> str:
    """A message as one line: what breaks a line or moves the cursor, in a name that somebody chose, is written out."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def without_secrets(address: str) -> str:
    """An address for a message, as one line: without what may be a password or a token (user, query, fragment)."""
    without_user = re.sub(r"^(\w*:/*)?.*@", r"\1...@", address, flags=re.DOTALL)
    return one_line(re.sub(r"([?#]).+", r"\1...", without_user, flags=re.DOTALL))


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not registered: gives the nearest name and the whole list."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UserError(f"unknown {what} '{name}': {hint}known: {', '.join(options)}")
