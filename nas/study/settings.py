"""What a search was asked for, as it is kept in config.json."""

from dataclasses import asdict, dataclass, replace

from nas.latency import Workload, parse_budget
from nas.study.constraints import Constraint
from nas.terminal.parser import SEEDS

_FLAGS = {"teacher_weights": "--teacher-weights", "budget": "--latency-budget", "plugins": "--plugin"}
_FLAGS |= {"height": "--resolution", "width": "--resolution"}
"""Setting -> its option on the command line, where that has another name."""


@dataclass(frozen=True)
class RunSettings:
    """What a search was asked for. Two searches may share a folder only if all of it is equal."""

    teacher: str
    """Registered name."""
    teacher_weights: str | None
    """Path given by the user, absolute; None for the embedded or published weights."""
    clips: str | None
    """Folder of the user's videos, absolute; None for the embedded clips."""
    budget: str
    """Latency budget as it was written: a time per decoded frame or a rate."""
    device: str
    """Device that the budget is for."""
    height: int
    """Height of the timed decode in pixels."""
    width: int
    """Width of the timed decode in pixels."""
    frames: int
    """Frames of the timed decode."""
    space: str
    """Registered search space."""
    steps: int
    """Steps of the short distillation."""
    seed: int
    """Seed of sampler, initialisation and data order."""
    plugins: tuple[str, ...] = ()
    """Modules with further parts, teachers and spaces that were asked for."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.frames, self.steps) < 1:
            raise ValueError("height, width, frames and steps have to be at least 1")
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed has to be from 0 to {SEEDS - 1}, got {self.seed}")
        parse_budget(self.budget)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a decoder may cost, in the order in which the study knows them."""
        return (Constraint("latency", parse_budget(self.budget), "ms per frame"),)

    def describe_constraints(self) -> str:
        """The constraints in words: "30 ms per frame"."""
        return " and ".join(constraint.describe() for constraint in self.constraints)

    @property
    def workload(self) -> Workload:
        """The timed decode."""
        return Workload(self.height, self.width, self.frames)


def difference(made: RunSettings, wanted: RunSettings) -> str:
    """The first setting in which two searches differ, in words; empty if they are the same search."""
    names = _differences(made, wanted)
    if not names:
        return ""
    flag = _FLAGS.get(names[0], f"--{names[0]}")
    return f"{flag} {_written(made, names[0])}, not {_written(wanted, names[0])}"


def _differences(one: RunSettings, other: RunSettings) -> list[str]:
    """Names of the settings that differ; how the budget was written does not matter."""
    same_budget = one.constraints == other.constraints
    plain, wanted = asdict(one), asdict(replace(other, budget=one.budget) if same_budget else other)
    return [name for name in plain if plain[name] != wanted[name]]


def _written(settings: RunSettings, name: str) -> str:
    """A setting as it was written on the command line."""
    if name in ("height", "width"):
        return f"{settings.height}x{settings.width}"
    return ", ".join(settings.plugins) or "none" if name == "plugins" else str(getattr(settings, name))
