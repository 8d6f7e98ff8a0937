"""Candidates of a search: their latency on the device, their score after a short distillation, their files."""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import optuna
import torch

from nas.data.targets import Targets
from nas.distillation.initialise import build
from nas.distillation.recipes import Recipe
from nas.distillation.settings import DistillSettings
from nas.export.footprint import footprint
from nas.export.lint import lint
from nas.latency import LatencyRecord, Workload
from nas.latency.devices import CORE_ML, HOST, LatencyDevice
from nas.machine.files import disk_errors, write_json
from nas.machine.quiet import measuring
from nas.study.costs import Costs
from nas.study.presence import gone
from nas.study.retries import unfinished_digests
from nas.study.run import Run
from nas.study.rungs import rungs
from nas.workers.job import Job, Segment
from search_spaces import Decoder, DecoderConfig, build_skeleton

_CHECKPOINT = re.compile(r"[0-9a-f]{12}-\d+\.pt")
"""Names of checkpoints: the digest of the architecture, and the seed."""


def count_parameters(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class ShortDistillation:
    """What the candidates of a search are measured, trained and scored with."""

    run: Run
    """The run whose folder keeps their files."""
    targets: Targets
    """What they are trained and scored on."""
    latency_device: LatencyDevice
    """What their latency is for."""
    device: torch.device
    """Where they are trained."""
    recipe: Recipe
    """How they are trained."""
    more_devices: Mapping[str, LatencyDevice] = field(default_factory=dict)
    """Further devices that the latency budget is for, by the names that they were asked for with."""

    @property
    def workload(self) -> Workload:
        """The decode that latency is for."""
        return self.run.settings.workload

    @property
    def is_measured(self) -> bool:
        """Whether a latency is measured, which nothing should run beside."""
        return "measured" in {device.kind for device in (self.latency_device, *self.more_devices.values())}

    def sweep(self, study: optuna.Study) -> None:
        """Remove checkpoints that nothing goes on from: of trials that were given up, or killed as they ended."""
        # Read before the study is: whoever shares the folder tells the study of a trial before it is trained.
        found = [path for path in self.checkpoints.glob("*.pt") if _CHECKPOINT.fullmatch(path.name)]
        unfinished = unfinished_digests(study)
        with disk_errors("cannot remove a checkpoint"):
            for path in found:
                if path.name.split("-")[0] not in unfinished:
                    path.unlink(missing_ok=True)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of candidates."""
        return self.run.folder / "training"

    def candidate(self, config: DecoderConfig) -> "DistilledCandidate":
        """The candidate of this architecture."""
        return DistilledCandidate(config, self)


class DistilledCandidate:
    """A candidate of a search: built without weights when it is proposed, given weights when something needs them."""

    def __init__(self, config: DecoderConfig, search: ShortDistillation) -> None:
        self.config = config
        self._search = search

    @cached_property
    def skeleton(self) -> Decoder:
        """The decoder on the meta device: shapes, no weights. It was tried at the size of the timed decode."""
        load = self._search.workload
        _, *size = self.config.latents.latent_shape(load.num_frames, load.height, load.width)
        return build_skeleton(self.config, (size[0], size[1], size[2]))

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder with its first weights, which the seed of the run decides; training changes it."""
        return build(self.config, self._search.run.settings.seed)

    @cached_property
    def costs(self) -> Costs:
        """Latency on every device that the budget is for, parameters, and of memory and size what is limited."""
        search, parameters = self._search, count_parameters(self.skeleton)
        takes = footprint(self.config, search.workload) if search.run.settings.limits_footprint else None
        return Costs(
            latency=self._latency(search.latency_device),
            parameters=parameters,
            latencies={name: self._latency(device) for name, device in search.more_devices.items()},
            memory=None if takes is None else takes.memory,
            size=None if takes is None else takes.size,
        )

    def _latency(self, device: LatencyDevice) -> LatencyRecord:
        """On this machine it is measured while nobody trains here."""
        skeleton = self.skeleton  # also where weights are needed: it shows at no cost that the parts fit together
        decoder = self.decoder if device.needs_weights else skeleton
        with measuring() if device.name in (HOST, CORE_ML) else nullcontext():
            return device.latency(decoder, self.config.latents, self._search.workload)

    @cached_property
    def problem(self) -> str:
        """Why it cannot be exported to Core ML; empty if it can."""
        return "; ".join(lint(self.skeleton, self._search.workload).problems)

    @property
    def settings(self) -> DistillSettings:
        """How it is distilled; scored at every rung."""
        run = self._search.run.settings
        settings = self._search.recipe.distillation(run.steps, run.seed)
        return replace(settings, report_every=rungs(run.steps)[0], checkpoint_every=rungs(run.steps)[0])

    def work(self, until: int) -> Job:
        """The job that trains it up to a step."""
        search = self._search
        return Job(self.config, self.settings, until, search.targets, str(search.device), self._checkpoint)

    def record(self, number: int, segment: Segment) -> None:
        """Write `trials/<number>/`; UserError if the run folder is not there, in whose place nothing is made."""
        run = self._search.run
        if not run.folder.is_dir():
            raise gone(run.folder)
        folder = run.trial_folder(number)
        found = {
            "curve": segment.curve,
            "score_db": segment.curve[-1][1] if segment.curve else None,
            "seconds": round(segment.seconds, 1),
            "failure": segment.failure,
            "settings": asdict(self.settings),
        }
        with disk_errors("cannot write the trial"):
            write_json(folder / "config.json", self.config.to_dict())
            if segment.curve or segment.failure:
                write_json(folder / "result.json", found)

    def forget(self) -> None:
        """Remove its checkpoint."""
        with disk_errors("cannot remove a checkpoint"):
            self._checkpoint.unlink(missing_ok=True)

    @property
    def _checkpoint(self) -> Path:
        """By what decides its weights, so that a trial that was cut off is continued by the one that repeats it."""
        return self._search.checkpoints / f"{self.config.digest()}-{self.settings.seed}.pt"
