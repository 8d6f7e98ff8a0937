"""Run folders: `runs/<name>/` holds everything that a search was started with and found.

config.json     every setting and version, enough to run it again
study.db        the Optuna study
trials/<n>/     config.json (the architecture), result.json (curve, score, seconds, settings of the distillation)
measured/       latencies measured again, a file per device
finalize/       checkpoints of full distillations
models/         what finalize makes
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.latency import Workload, parse_budget
from nas.machine.files import disk_errors, read_json, write_json
from nas.machine.locks import lock_folder
from nas.machine.versions import versions
from nas.study.constraints import Constraint
from nas.terminal.errors import UserError

RUNS_FOLDER = Path("runs")
_FORMAT = 2


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


_FLAGS = {"teacher_weights": "--teacher-weights", "budget": "--latency-budget", "plugins": "--plugin"}
_FLAGS |= {"height": "--resolution", "width": "--resolution"}


@dataclass(frozen=True)
class Run:
    """A run folder on disk."""

    folder: Path
    """Where everything about the search is kept."""
    settings: RunSettings
    """What the search was asked for."""

    @property
    def storage_url(self) -> str:
        """The study's database for Optuna."""
        return f"sqlite:///{self.folder / 'study.db'}"

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its files."""
        return self.folder / "trials" / str(number)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it however the process ends.

        Raises:
            UserError: another process is working in it, or it cannot be written.
        """
        remedy = "wait for it, stop it, or choose another --run"
        with lock_folder(self.folder, remedy):
            yield


def open_run(settings: RunSettings, folder: Path | None) -> tuple[Run, bool]:
    """The run folder for a search, and whether it already existed.

    Without `folder`: the newest run under `runs/` with the same settings, else a new one
    `runs/<teacher>-<budget>-<date>`.

    Raises:
        UserError: the folder belongs to a search with other settings, is not a run folder, or cannot be written.
    """
    if folder is None:
        same = [run for run in _list_runs() if _differences(run.settings, settings) == []]
        if same:
            return same[0], True
        folder = _new_folder(settings)
    if (folder / "config.json").exists():
        run = load_run(folder)
        differing = _differences(run.settings, settings)
        if differing:
            name = differing[0]
            flag = _FLAGS.get(name, f"--{name}")
            raise UserError(
                f"{folder} was made with {flag} {_written(run.settings, name)}, not {_written(settings, name)}: "
                f"use the same value or another --run folder"
            )
        return run, True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not a run folder and not empty: choose another --run")
    return _create(folder, settings), False


def load_run(folder: Path) -> Run:
    """An existing run folder.

    Raises:
        UserError: there is no run, or its config.json is of another version.
    """
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder} is not a run folder (no config.json in it): start one with python -m nas.search")
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise UserError(f"{path} is of another version of this program: start a new run")
    settings = data["settings"]
    return Run(folder, RunSettings(**{**settings, "plugins": tuple(settings["plugins"])}))


def newest_run() -> Run:
    """The run under `runs/` that was worked on last; UserError if there is none."""
    runs = _list_runs()
    if not runs:
        raise UserError(f"no run found under {RUNS_FOLDER}/: start one with python -m nas.search, or name its folder")
    return runs[0]


def _list_runs() -> list[Run]:
    """All runs, the one worked on last first."""
    configs = list(RUNS_FOLDER.glob("*/config.json"))
    configs.sort(key=lambda path: _last_use(path.parent), reverse=True)
    return [load_run(path.parent) for path in configs]


def _last_use(folder: Path) -> float:
    """When the run was made or last locked, whichever is later."""
    return max(path.stat().st_mtime for path in (folder / "config.json", folder / ".lock") if path.exists())


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


def _new_folder(settings: RunSettings) -> Path:
    stem = f"{settings.teacher}-{settings.budget}-{datetime.now(UTC):%m%d}"
    for suffix in ("", *(f"-{count}" for count in range(2, 1000))):
        folder = RUNS_FOLDER / f"{stem}{suffix}"
        if not folder.exists():
            return folder
    raise UserError(f"there are too many runs named {RUNS_FOLDER / stem}: name one with --run")


def _create(folder: Path, settings: RunSettings) -> Run:
    data: dict[str, Any] = {
        "format": _FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": asdict(settings),
        "versions": versions(),
    }
    existed = folder.exists()
    try:
        with disk_errors(f"cannot create the run folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "config.json", data)
    except FileNotFoundError as error:
        raise UserError(f"no folder can be made at {folder}: choose another --run") from error
    except UserError:
        if not existed and folder.exists():
            folder.rmdir()
        raise
    return Run(folder, settings)
