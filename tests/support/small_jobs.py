"""Jobs that do next to nothing, for pools."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from nas.terminal.errors import UserError
from nas.workers.job import Segment


@dataclass(frozen=True)
class Describe:
    """Says which process runs it, and on how many threads."""

    def __call__(self) -> Segment:
        import torch

        return Segment(((os.getpid(), float(torch.get_num_threads())),))


@dataclass(frozen=True)
class KillItself:
    """Kills its process until it has been begun so many times."""

    folder: Path
    times: int

    def __call__(self) -> Segment:
        begun = len(list(self.folder.iterdir()))
        (self.folder / str(begun)).touch()
        if begun < self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return Segment(((begun, 1.0),))


@dataclass(frozen=True)
class Refuse:
    """Raises what a user is told."""

    def __call__(self) -> Segment:
        raise UserError("the checkpoint is damaged: delete it")


@dataclass(frozen=True)
class WaitAndWrite:
    """Says that it has begun, waits, and leaves a file if it was not stopped."""

    folder: Path
    seconds: float

    def __call__(self) -> Segment:
        (self.folder / f"begun-{os.getpid()}").touch()
        time.sleep(self.seconds)
        (self.folder / "ended").touch()
        return Segment(())
