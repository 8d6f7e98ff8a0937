"""Run folders: `runs/<name>/` holds everything that a search was started with and found.

config.json     every setting, version and digest of what the numbers depend on, enough to run it again
study.db        the Optuna study, unless it is on a server
trials/<n>/     config.json (the architecture), result.json (curve, score, seconds, settings of the distillation)
measured/       latencies measured again, a file per device
finalize/       checkpoints of full distillations
models/         what finalize makes
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.machine.files import disk_errors, read_json, write_json
from nas.machine.locks import lock_folder
from nas.machine.plugins import load_plugins
from nas.machine.records import read_fields
from nas.machine.versions import versions
from nas.study.contents import Contents, changes, in_one_line
from nas.study.settings import RunSettings, difference
from nas.study.storage import storage_url
from nas.terminal.errors import UserError

if TYPE_CHECKING:
    import sqlalchemy

RUNS_FOLDER = Path("runs")
_FORMAT = 4
_BEFORE_CONFIG = (".lock", ".nas-tmp-", ".config.json.")
"""How names begin of what a kill may leave in a folder that was about to become a run."""

Skip = Callable[[str], None]
"""Called with one line about each run folder that cannot be read and is left out."""


@dataclass(frozen=True)
class Run:
    """A run folder on disk."""

    folder: Path
    """Where everything about the search is kept."""
    settings: RunSettings
    """What the search was asked for."""

    contents: Contents = field(default_factory=dict)
    """Digests of everything that its numbers depend on, as they were when it was made."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions that it was made with."""
    storage: str = ""
    """Address of the server that its study is on, without a password; empty: it is in the folder."""
    study: str = ""
    """Name of its study on the server."""

    @property
    def storage_url(self) -> "sqlalchemy.URL":
        """The study's database for Optuna, if it is in the folder."""
        return storage_url(self.folder / "study.db")

    def check_contents(self, found: Contents) -> None:
        """Compare what the run was made with and what is there now, of the kinds in `found`.

        Raises:
            UserError: something is not as it was; the message says what.
        """
        if changed := changes(self.contents, found):
            raise UserError(
                f"{self.folder} was made with something else ({in_one_line(changed)}), and its numbers would not be "
                f"comparable: restore that, or start a new run with python -m nas.search --run DIR"
            )

    def version_changes(self) -> list[str]:
        """One line if other versions are installed than the run was made with, for a warning; empty if not."""
        now = versions()
        names = [name for name in sorted({*self.versions, *now}) if self.versions.get(name) != now.get(name)]
        changed = (f"{name} {self.versions.get(name, 'none')} -> {now.get(name, 'none')}" for name in names)
        return [f"made with other versions: {', '.join(changed)}"] if names else []

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


def open_run(
    settings: RunSettings,
    folder: Path | None,
    contents: Contents | None = None,
    on_skipped: Skip = lambda line: None,
    storage: str = "",
    study: str = "",
) -> tuple[Run, bool]:
    """The run folder for a search, and whether it already existed.

    Without `folder`: the newest run under `runs/` with the same settings and contents, else a new one
    `runs/<teacher>-<budget>-<date>`.

    Args:
        settings: what the search is asked for.
        folder: where; None to look for it.
        contents: what its numbers will depend on.
        on_skipped: see `Skip`.
        storage: address of the server that its study is on, without a password; empty: it is in the folder.
        study: name of the study on the server; empty: that of the folder.

    Raises:
        UserError: the folder belongs to a search with other settings or contents, is not a run folder, or cannot be
            written.
    """
    contents = contents or {}
    wanted = Run(folder or RUNS_FOLDER, settings, contents, versions(), storage, study)
    if folder is None:
        same = [run for run in _list_runs(on_skipped) if not _difference(run, wanted)]
        if same:
            run = next((run for run in same if not changes(run.contents, contents)), same[0])
            run.check_contents(contents)
            return run, True
        return _create_new(wanted), False
    foreign = folder.exists() and (not folder.is_dir() or _holds_anything(folder))
    # Asked after it: what the folder holds may be what a search that started together with this one has just written.
    if (folder / "config.json").exists():
        return _reopen(wanted), True
    if foreign:
        raise UserError(f"{folder} is not a run folder and not empty: choose another --run")
    existed = folder.exists()
    with disk_errors(f"cannot create the run folder {folder}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError) as error:
            raise UserError(f"no folder can be made at {folder}: choose another --run") from error
    return _fill(wanted, remove=not existed)


def load_run(folder: Path) -> Run:
    """An existing run folder.

    Raises:
        UserError: there is no run, or its config.json is damaged or of another version.
    """
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder} is not a run folder (no config.json in it): start one with python -m nas.search")
    remedy = "restore it, or start a new run with another --run"
    try:
        data = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise UserError(f"{path} is of another version of this program: start a new run with another --run")
    try:
        config = read_fields(_Config, data)
        settings = read_fields(RunSettings, config.settings)
    except ValueError as error:
        raise UserError(f"{path} is not what this program wrote ({error}): {remedy}") from error
    return Run(folder, settings, config.contents, config.versions, config.storage, config.study)


@dataclass(frozen=True)
class _Config:
    """What config.json holds."""

    format: int
    """Version of the file's format."""
    created: str
    """Date and time, ISO 8601."""
    settings: dict[str, Any]
    """Fields of `RunSettings`."""
    contents: dict[str, dict[str, str]]
    """See `Run`."""
    versions: dict[str, str]
    """See `Run`."""
    storage: str = ""
    """See `Run`."""
    study: str = ""
    """See `Run`."""


def chosen_run(folder: Path | None, on_skipped: Skip) -> Run:
    """The run in a folder, or the newest one if no folder is named, once its plugins are loaded.

    Raises:
        UserError: it is not there, cannot be read, or needs a plugin that is not installed.
    """
    run = load_run(folder) if folder else newest_run(on_skipped)
    load_plugins(run.settings.plugins)
    return run


def newest_run(on_skipped: Skip = lambda line: None) -> Run:
    """The run under `runs/` that was worked on last; UserError if there is none."""
    runs = _list_runs(on_skipped)
    if not runs:
        raise UserError(f"no run found under {RUNS_FOLDER}/: start one with python -m nas.search, or name its folder")
    return runs[0]


def _list_runs(on_skipped: Skip) -> list[Run]:
    """All runs that can be read, the one worked on last first."""
    found = []
    for path in RUNS_FOLDER.glob("*/config.json"):
        try:
            found.append((_last_use(path.parent), load_run(path.parent)))
        except UserError as error:
            on_skipped(f"left out: {error}")
        except OSError as error:
            on_skipped(f"left out: {path.parent} cannot be read ({error.strerror})")
    return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _last_use(folder: Path) -> float:
    """When the run was made or last locked, whichever is later."""
    return max(path.stat().st_mtime for path in (folder / "config.json", folder / ".lock") if path.exists())


def _reopen(wanted: Run) -> Run:
    run = load_run(wanted.folder)
    if differing := _difference(run, wanted):
        raise UserError(f"{run.folder} was made with {differing}: use the same value or another --run folder")
    run.check_contents(wanted.contents)
    return run


def _difference(made: Run, wanted: Run) -> str:
    """The first thing but its contents in which two runs differ, in words; empty if they are the same search."""
    if made.storage != wanted.storage:
        return f"--storage {made.storage or 'in its folder'}, not {wanted.storage or 'in its folder'}"
    if wanted.study and made.study != wanted.study:
        return f"the study '{made.study}', not '{wanted.study}'"
    return difference(made.settings, wanted.settings)


def _holds_anything(folder: Path) -> bool:
    return not all(path.name.startswith(_BEFORE_CONFIG) for path in folder.iterdir())


def _create_new(wanted: Run) -> Run:
    """A run in a folder that nobody else has made: of two searches that start together each gets its own."""
    stem = f"{wanted.settings.teacher}-{wanted.settings.budget}-{datetime.now(UTC):%m%d}"
    with disk_errors(f"cannot create a run folder in {RUNS_FOLDER}"):
        if RUNS_FOLDER.exists() and not RUNS_FOLDER.is_dir():
            raise UserError(f"{RUNS_FOLDER} is a file, and runs are made in it: move it, or name a folder with --run")
        RUNS_FOLDER.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{count}" for count in range(2, 1000))):
            folder = RUNS_FOLDER / f"{stem}{suffix}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return _fill(replace(wanted, folder=folder), remove=True)[0]
    raise UserError(f"there are too many runs named {RUNS_FOLDER / stem}: name one with --run")


def _fill(run: Run, *, remove: bool) -> tuple[Run, bool]:
    """Make a folder a run, or take the one that another process has made there meanwhile; and whether it did.

    Args:
        run: what it will be; its folder is there, with nothing in it.
        remove: whether the folder is removed if that fails.
    """
    folder = run.folder
    if run.storage and not run.study:
        run = replace(run, study=folder.resolve().name)
    made, now = datetime.now(UTC).isoformat(timespec="seconds"), versions()
    config = _Config(_FORMAT, made, asdict(run.settings), {}, now, run.storage, run.study)
    try:
        with run.lock():
            if (folder / "config.json").exists():
                return _reopen(run), True
            try:
                with disk_errors(f"cannot create the run folder {folder}"):
                    write_json(folder / "config.json", {**asdict(config), "contents": run.contents})
            except UserError:
                (folder / ".lock").unlink()
                raise
    except UserError:
        if remove and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return run, False
