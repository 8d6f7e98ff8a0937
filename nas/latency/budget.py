"""Latency budgets as people write them: a duration per frame or a frame rate."""

import math
import re

from nas.terminal.errors import UserError

_BUDGET = re.compile(r"([+-]?\d*\.?\d+(?:e[+-]?\d+)?)\s*(ms|s|fps)", re.IGNORECASE)


def parse_budget(text: str) -> float:
    """Milliseconds per frame for "30ms", "0.03s" or "33fps"; case and spaces do not matter.

    Raises:
        UserError: the unit is missing or unknown, or the number is not positive and finite.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        raise UserError(f"expected a duration such as 30ms or 0.03s, or a rate such as 33fps, got {text!r}")
    value, unit = float(match[1]), match[2].lower()
    if not 0 < value < math.inf:
        raise UserError(f"a latency budget must be positive and finite, such as 30ms, got {text!r}")
    budget = {"ms": value, "s": 1000 * value, "fps": 1000 / value}[unit]
    if not 0 < budget < math.inf:
        raise UserError(f"a latency budget must be positive and finite, such as 30ms, got {text!r}")
    return budget


def format_ms(milliseconds: float, budget: float = math.inf) -> str:
    """A latency in milliseconds with as many digits as say on which side of a budget it is: 21.7, 0.28, 0.3004."""
    digits = 1
    while digits < 9:
        text = f"{milliseconds:.{digits}f}"
        # At least two digits that count, of what is below 1, too.
        if (float(text) > budget) == (milliseconds > budget) and milliseconds >= 10.0 ** (1 - digits):
            break
        digits += 1
    return text
