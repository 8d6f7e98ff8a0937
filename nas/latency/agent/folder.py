"""The folder of an agent: marked when it is made, so that nothing is ever deleted in a folder of somebody else's."""

import re
from pathlib import Path

from nas.terminal.errors import UserError

MARKER = "latency-agent.txt"
"""Name of the file that marks a folder as an agent's."""

INCOMING, UPLOADS, PREFIX = "incoming", "uploads", "upload-"
"""Names of the folders of uploads that are arriving and that wait for their turn, and what names of the first begin
with."""

_NOTE = "This folder is a measuring agent's: its queue and results are in queue.db, uploads that wait in uploads/.\n"
_JOB = re.compile(r"[0-9a-f]{32}")


def claim_folder(folder: Path) -> None:
    """Make a folder the agent's own: it is new, empty, or was an agent's before.

    Raises:
        UserError: it holds something else; nothing in it is changed.
        OSError: it cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MARKER
    if marker.exists():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    if others:
        raise UserError(
            f"{folder} is not an agent's folder (it holds {others[0]!r} and no {MARKER}): choose another --folder, "
            f"one that is new or empty"
        )
    marker.write_text(_NOTE)


def prepare_folder(folder: Path, waiting: set[str]) -> None:
    """Make what a claimed folder needs, and delete what a kill left in it: parts of uploads, uploads of ended jobs.

    Only files that bear names that an agent gives are deleted.

    Args:
        folder: was claimed, and is locked.
        waiting: the ids of jobs that still need their uploads.

    Raises:
        OSError: it cannot be read or written.
    """
    for name in (INCOMING, UPLOADS):
        (folder / name).mkdir(exist_ok=True)
    left = [path for path in (folder / INCOMING).iterdir() if path.name.startswith(PREFIX)]
    left += [path for path in (folder / UPLOADS).iterdir() if _JOB.fullmatch(path.name) and path.name not in waiting]
    for path in left:
        if path.is_file() and not path.is_symlink():
            path.unlink()
