"""What a search was asked for, as it is kept in config.json."""

from dataclasses import asdict, dataclass

from nas.latency import Workload, parse_budget
from nas.proposals.names import DEFAULT_PROPOSER
from nas.study.constraints import Constraint, in_words
from nas.study.costs import latency_on
from nas.study.quantities import parse_bytes, parse_count
from nas.terminal.parser import SEEDS

_FLAGS = {"budget": "--latency-budget", "plugins": "--plugin", "more_devices": "--device"}
_FLAGS |= {"height": "--resolution", "width": "--resolution"}
"""Setting -> its option on the command line, where that has another name."""
_LIMITS = {"budget": parse_budget, "max_params": parse_count, "max_memory": parse_bytes, "max_size": parse_bytes}
"""Settings that may be written in several ways -> what they say."""


@dataclass(frozen=True)
class RunSettings:
    """What a search was asked for. Two searches may share a folder only if all of it is equal."""

    teacher: str
    """Registered name."""
    teacher_weights: str | None
    """Path given by the user, absolute; None for the embedded or published weights."""
    clips: str | None
    """Folder or list of the user's videos, absolute; None for the embedded clips."""
    budget: str
    """Latency budget as it was written: a time per decoded frame or a rate."""
    device: str
    """Device that the budget is for; the first one if there are several."""
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
    more_devices: tuple[str, ...] = ()
    """Further devices on which the latency budget is to be met, too."""
    max_params: str | None = None
    """Most parameters, as it was written; None: any number."""
    max_memory: str | None = None
    """Most bytes of activations of the timed decode, as it was written; None: any number."""
    max_size: str | None = None
    """Most bytes of the exported package, as it was written; None: any number."""
    proposer: str = DEFAULT_PROPOSER
    """What proposes decoders, one of `PROPOSERS`."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.frames, self.steps) < 1:
            raise ValueError("height, width, frames and steps have to be at least 1")
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed has to be from 0 to {SEEDS - 1}, got {self.seed}")
        if len(set(self.devices)) < len(self.devices):
            raise ValueError("a device is named twice")
        _ = self.constraints  # what is no limit is refused

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices that the latency budget is for, the first one first."""
        return (self.device, *self.more_devices)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a decoder may cost, latency on the first device first.

        They are in the order of their names: Optuna gives them back by name or as they were told, and samplers take
        them by their place.
        """
        budget, several = parse_budget(self.budget), bool(self.more_devices)
        found = [Constraint("latency", budget, f"ms per frame on {self.device}" if several else "ms per frame")]
        found += [Constraint(latency_on(name), budget, f"ms per frame on {name}") for name in self.more_devices]
        if self.max_params is not None:
            found.append(Constraint("parameters", parse_count(self.max_params) / 1e6, "M parameters"))
        if self.max_memory is not None:
            found.append(Constraint("memory", parse_bytes(self.max_memory) / 1e6, "MB of activations"))
        if self.max_size is not None:
            found.append(Constraint("size", parse_bytes(self.max_size) / 1e6, "MB of package"))
        return tuple(sorted(found, key=lambda constraint: constraint.name))

    @property
    def limits_footprint(self) -> bool:
        """Whether memory or size is limited, which decoders have to be converted for."""
        return self.max_memory is not None or self.max_size is not None

    def describe_constraints(self) -> str:
        """The constraints in words: "30 ms per frame"."""
        return in_words(self.constraints)

    @property
    def workload(self) -> Workload:
        """The timed decode."""
        return Workload(self.height, self.width, self.frames)


def command_arguments(settings: RunSettings) -> list[str]:
    """The options of the search that was asked for, all of them written out."""
    given = {
        "--teacher": settings.teacher,
        "--teacher-weights": settings.teacher_weights,
        "--clips": settings.clips,
        "--latency-budget": settings.budget,
        "--resolution": f"{settings.height}x{settings.width}",
        "--frames": settings.frames,
        "--max-params": settings.max_params,
        "--max-memory": settings.max_memory,
        "--max-size": settings.max_size,
        "--space": settings.space,
        "--proposer": settings.proposer,
        "--steps": settings.steps,
        "--seed": settings.seed,
    }
    several = {"--device": settings.devices, "--plugin": settings.plugins}
    words = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    return words + [word for flag, values in several.items() for value in values for word in (flag, value)]


def difference(made: RunSettings, wanted: RunSettings) -> str:
    """The first setting in which two searches differ, in words; empty if they are the same search."""
    names = _differences(made, wanted)
    if not names:
        return ""
    flag = _FLAGS.get(names[0], f"--{names[0].replace('_', '-')}")
    return f"{flag} {_written(made, names[0])}, not {_written(wanted, names[0])}"


def _differences(one: RunSettings, other: RunSettings) -> list[str]:
    """Names of the settings that differ; how limits were written does not matter."""
    plain, wanted = asdict(one), asdict(other)
    for name, read in _LIMITS.items():
        plain[name], wanted[name] = (value and read(value) for value in (plain[name], wanted[name]))
    return [name for name in plain if plain[name] != wanted[name]]


def _written(settings: RunSettings, name: str) -> str:
    """A setting as it was written on the command line."""
    if name in ("height", "width"):
        return f"{settings.height}x{settings.width}"
    if name in ("device", "more_devices"):
        return " and ".join(settings.devices)
    if name == "plugins":
        return ", ".join(settings.plugins) or "none"
    value = getattr(settings, name)
    return "none" if value is None else str(value)
