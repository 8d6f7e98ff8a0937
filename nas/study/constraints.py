"""Constraints: what a decoder may cost. Their values are known before any training, in one fixed order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Constraint:
    """An upper limit on one number that is known of a decoder without training it."""

    name: str
    """Name of the limited number, as in the values of a candidate."""
    limit: float
    """Largest value that is allowed."""
    unit: str
    """Unit of the limit, as printed after the number."""

    def __post_init__(self) -> None:
        if not 0 < self.limit < float("inf"):
            raise ValueError(f"the limit of {self.name} must be positive and finite, got {self.limit}")

    def violation(self, value: float) -> float:
        """How far a value is over the limit, relative to it; 0 or less where the constraint is met."""
        return (value - self.limit) / self.limit

    def is_met(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value <= self.limit

    def describe(self) -> str:
        """The limit with its unit: "30 ms per frame"."""
        return f"{self.limit:.4g} {self.unit}"

    def describe_value(self, value: float) -> str:
        """A value with its unit, in as many digits as say on which side of the limit it is: "30.001 ms per frame"."""
        digits = 4
        while digits < 17 and (float(f"{value:.{digits}g}") > self.limit) != (value > self.limit):
            digits += 1
        return f"{value:.{digits}g} {self.unit}"


def all_met(constraints: Sequence[Constraint], values: Mapping[str, float]) -> bool:
    """Whether every constraint is met; KeyError if a value is missing, which would be no value to trust."""
    return all(constraint.is_met(values[constraint.name]) for constraint in constraints)


def most_violated(constraints: Sequence[Constraint], values: Mapping[str, float]) -> Constraint:
    """The constraint whose limit is exceeded most, relative to it; where all are met, the one that is nearest to it."""
    return max(constraints, key=lambda constraint: constraint.violation(values[constraint.name]))


def excess(constraints: Sequence[Constraint], values: Mapping[str, float]) -> str:
    """The value that is over its limit most, in words; empty if it is the first one, which has a column of its own."""
    worst = most_violated(constraints, values)
    return "" if worst == constraints[0] else worst.describe_value(values[worst.name])


def in_words(constraints: Sequence[Constraint]) -> str:
    """All limits: "30 ms per frame, 5 M parameters and 20 MB of package"."""
    *first, last = (constraint.describe() for constraint in constraints)
    return f"{', '.join(first)} and {last}" if first else last
