"""Whether the folder and the files of a run are still those that work began with."""

from dataclasses import dataclass
from pathlib import Path

from nas.terminal.errors import UserError


@dataclass(frozen=True)
class Presence:
    """A run folder and its files as they were when work began."""

    folder: Path
    """The run folder."""
    identities: dict[Path, tuple[int, int]]
    """Device and inode of the folder and of each of the files in it that must stay."""

    @classmethod
    def of(cls, folder: Path, *names: str) -> "Presence":
        """The folder and the files of these names, which are there."""
        return cls(folder, {path: _identity(path) for path in (folder, *(folder / name for name in names))})

    def check(self) -> None:
        """See that nothing was moved, deleted or put in place of it.

        Raises:
            UserError: something was: what is written from now on, and some of what was before, would be lost.
        """
        for path, identity in self.identities.items():
            try:
                same = _identity(path) == identity
            except (FileNotFoundError, NotADirectoryError):
                same = False
            if not same:
                raise gone(path)


def gone(path: Path) -> UserError:
    """What is said when a file or folder of a run is no longer there."""
    return UserError(
        f"{path} was moved, deleted or replaced while this was running, and what was found is not saved there: put it "
        f"back and run the same command again, or start a new run"
    )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
