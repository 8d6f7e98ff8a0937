"""What a command left behind: the trials of a study, and the state of files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna


@contextmanager
def open_study(folder: Path) -> Iterator[optuna.Study]:
    """The study in a run folder, without the code that made it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    yield optuna.load_study(study_name=None, storage=storage)
    storage.engine.dispose()


def read_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """All trials in the order of their numbers."""
    with open_study(folder) as study:
        return study.get_trials()


def was_trained(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.user_attrs.get("status") in ("scored", "pruned", "failed")


def list_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, with the time of its last change and its size."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size if path.is_file() else 0)
        for path in sorted(folder.rglob("*"))
    }


def stamps(folder: Path, pattern: str) -> dict[str, tuple[int, int]]:
    """File -> inode and time of the last change: who writes a file again changes both."""
    found = {str(path.relative_to(folder)): path.stat() for path in folder.glob(pattern)}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}
