"""A job: one decoder, trained from where its checkpoint is up to a step, in any process that can read its files."""

from dataclasses import dataclass
from pathlib import Path

from nas.data.targets import Targets
from nas.distillation.distill import distill
from nas.distillation.initialise import build
from nas.distillation.settings import DistillSettings
from nas.distillation.step import DivergedError
from nas.machine.batches import DoesNotFitError, out_of_memory_as
from nas.machine.quiet import training
from search_spaces import DecoderConfig


@dataclass(frozen=True)
class Segment:
    """What is known of a distillation when a job of it has ended."""

    curve: tuple[tuple[int, float], ...]
    """Steps done and score in dB, from the first score of the distillation on."""
    seconds: float = 0.0
    """Time that it took so far, in seconds, over all its jobs."""
    failure: str = ""
    """Why it cannot be trained any further; empty if it can."""


@dataclass(frozen=True)
class Job:
    """A piece of a distillation. Calling it runs it: the same job gives the same segment, cut off before or not."""

    config: DecoderConfig
    """The architecture."""
    settings: DistillSettings
    """How the whole distillation goes, its seed included."""
    until: int
    """Step at which this piece ends."""
    targets: Targets
    """What it is trained and scored on."""
    device: str
    """Where it is trained."""
    checkpoint: Path
    """File that it goes on from, if it is there, and that it leaves."""

    def __call__(self) -> Segment:
        """Train it, while nobody measures on this machine.

        Raises:
            UserError: the checkpoint is damaged or of another distillation; the disk does not take it.
        """
        decoder = build(self.config, self.settings.seed)
        given = (decoder, self.targets, self.settings)
        try:
            out_of_memory = DoesNotFitError(f"{self.device} is out of memory")
            with training(), out_of_memory_as(out_of_memory):
                result = distill(*given, device=self.device, checkpoint=self.checkpoint, until=self.until)
        except DivergedError as error:
            return Segment((), failure=str(error))
        except DoesNotFitError as error:
            return Segment((), failure=f"{error}: lower --max-memory or --workers")
        return Segment(tuple(result.curve), result.seconds)
