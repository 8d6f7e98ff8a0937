"""What the models of one run are made with: one value for all of them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.data.latent_clips import LatentClip
from nas.data.targets import Targets
from nas.distillation.preparation import perceptual_off
from nas.distillation.settings import DistillSettings
from nas.latency import Workload
from nas.latency.devices import LatencyDevice
from nas.machine.processes import ALONE, Processes
from nas.study.run import Run
from nas.teachers import Teacher


@dataclass(frozen=True)
class Stretch:
    """One phase of the full distillations."""

    name: str
    """What it is for, in words."""
    targets: Targets
    """What it trains on."""
    settings: DistillSettings
    """How."""

    def identity(self) -> dict[str, Any]:
        """Everything that the trained weights depend on, JSON primitives."""
        lpips = not perceptual_off(self.settings)
        return {"name": self.name, "targets": self.targets.key, "lpips": lpips, **self.settings.identity()}


@dataclass(frozen=True)
class Job:
    """Everything that the models of one run have in common."""

    run: Run
    """The search that the candidates are from."""
    teacher: Teacher
    """The teacher of the run."""
    recipe: str
    """Name of the recipe that the phases are from."""
    stretches: tuple[Stretch, ...]
    """How models are distilled, one after the other; at least one."""
    unseen: Targets
    """Targets that models are judged on: clips that neither training nor selection saw."""
    device: torch.device
    """Where models are distilled, judged and timed."""
    phone: LatencyDevice
    """What latency is predicted for, beside the one that is measured here."""
    clips: str
    """Where the clips are from, in words."""
    out: Path
    """Where model folders go."""
    processes: Processes = ALONE
    """Those that distil together; the first one does all the rest."""
    latents: tuple[LatentClip, ...] = ()
    """Latents of the user's that are trained on, too."""

    @property
    def steps(self) -> int:
        """Steps of the full distillation."""
        return sum(stretch.settings.steps for stretch in self.stretches)

    def distillation(self) -> dict[str, Any]:
        """Everything that the weights of a model depend on but its architecture, JSON primitives."""
        phases = [stretch.identity() for stretch in self.stretches]
        return {"recipe": self.recipe, "steps": self.steps, "phases": phases} | self._latents()

    def _latents(self) -> dict[str, Any]:
        """Which latents of the user's; nothing without any, so that models from before are found again."""
        if not self.latents:
            return {}
        digest = hashlib.sha256(" ".join(clip.content for clip in self.latents).encode()).hexdigest()
        return {"latents": {"count": len(self.latents), "sha256": digest}}

    @property
    def workload(self) -> Workload:
        """The timed decode."""
        return self.run.settings.workload
