"""What the models of one run are made with: one value for all of them."""

from dataclasses import dataclass
from pathlib import Path

import torch

from nas.data.targets import Targets
from nas.distillation.recipes import Recipe
from nas.latency import Workload
from nas.latency.devices import LatencyDevice
from nas.study.run import Run
from nas.teachers import Teacher


@dataclass(frozen=True)
class Job:
    """Everything that the models of one run have in common."""

    run: Run
    """The search that the candidates are from."""
    teacher: Teacher
    """The teacher of the run."""
    training: Targets
    """Targets that models are distilled on."""
    unseen: Targets
    """Targets that models are judged on: clips that neither training nor selection saw."""
    device: torch.device
    """Where models are distilled, judged and timed."""
    recipe: Recipe
    """How they are distilled."""
    phone: LatencyDevice
    """What latency is predicted for, beside the one that is measured here."""
    clips: str
    """Where the clips are from, in words."""
    steps: int
    """Steps of the full distillation."""
    out: Path
    """Where model folders go."""

    @property
    def workload(self) -> Workload:
        """The timed decode."""
        return self.run.settings.workload
