"""The videos of a folder and its subfolders, links to folders included, and what looks like one and is none."""

from collections import deque
from pathlib import Path

EXTENSIONS = (".mp4", ".mov", ".mkv", ".avi", ".webm")


def find_videos(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """All video files in a folder, sorted, and what was left out: names and reasons.

    A folder is entered once, however many links lead to it, so links that lead in a circle end; what lies in the folder
    itself counts before what links lead to.
    """
    files: list[Path] = []
    left_out: list[tuple[str, str]] = []
    entered: dict[tuple[int, int], Path] = {}
    folders, links = deque([folder]), deque[Path]()
    while folders or links:
        path = folders.popleft() if folders else links.popleft()
        try:
            status = path.stat()
            first = entered.setdefault((status.st_dev, status.st_ino), path)
            if first is not path:
                left_out.append((str(path.relative_to(folder)), f"is the folder {first} again"))
                continue
            members = sorted(path.iterdir())
        except OSError as error:
            left_out.append((str(path.relative_to(folder)), f"cannot be read ({error.strerror})"))
            continue
        for member in members:
            what = _what_is(member)
            if what == "folder":
                (links if member.is_symlink() else folders).append(member)
            elif member.suffix.lower() in EXTENSIONS:
                if what == "file":
                    files.append(member)
                else:
                    left_out.append((member.name, what))
    return sorted(files), left_out


def _what_is(path: Path) -> str:
    """ "folder", "file", or what is wrong with it."""
    try:
        if path.is_dir():
            return "folder"
        if path.is_file():
            return "file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "is a link to nothing" if path.is_symlink() else "is no file"
