"""Candidates of a search: their latency on the device, their score after a short distillation, their files."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

import torch

from nas.data.targets import Targets
from nas.distillation.distill import Progress, distill
from nas.distillation.recipes import Recipe
from nas.export.footprint import footprint
from nas.export.lint import lint
from nas.latency import LatencyRecord, Workload
from nas.latency.devices import LatencyDevice
from nas.machine.files import disk_errors, write_json
from nas.study.candidate import Report
from nas.study.costs import Costs
from nas.study.run import Run
from search_spaces import Decoder, DecoderConfig, build_skeleton


def build(config: DecoderConfig, seed: int) -> Decoder:
    """A fresh decoder on the CPU; the same weights for the same seed."""
    torch.manual_seed(seed)
    return Decoder(config)


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
    on_step: Callable[[int, int, int], None] = lambda number, step, steps: None
    """`on_step(trial number, step, steps)`, often enough for a progress display, and before files are written."""
    more_devices: Mapping[str, LatencyDevice] = field(default_factory=dict)
    """Further devices that the latency budget is for, by the names that they were asked for with."""

    @property
    def workload(self) -> Workload:
        """The decode that latency is for."""
        return self.run.settings.workload

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
        takes = footprint(self.skeleton, search.workload) if search.run.settings.limits_footprint else None
        return Costs(
            latency=self._latency(search.latency_device),
            parameters=parameters,
            latencies={name: self._latency(device) for name, device in search.more_devices.items()},
            memory=None if takes is None else takes.memory,
            size=None if takes is None else takes.size,
        )

    def _latency(self, device: LatencyDevice) -> LatencyRecord:
        skeleton = self.skeleton  # also where weights are needed: it shows at no cost that the parts fit together
        decoder = self.decoder if device.needs_weights else skeleton
        return device.latency(decoder, self.config.latents, self._search.workload)

    @cached_property
    def problem(self) -> str:
        """Why it cannot be exported to Core ML; empty if it can."""
        return "; ".join(lint(self.skeleton, self._search.workload).problems)

    def train(self, number: int, report: Report) -> float:
        """PSNR in dB against the teacher after a short distillation; writes `trials/<number>/`."""
        search, run = self._search, self._search.run
        settings = search.recipe.distillation(run.settings.steps, run.settings.seed)
        folder = run.trial_folder(number)
        search.on_step(number, 0, settings.steps)
        with disk_errors("cannot write the trial"):
            write_json(folder / "config.json", self.config.to_dict())
        curve: list[tuple[int, float]] = []

        def on_progress(progress: Progress) -> None:
            search.on_step(number, progress.step, progress.steps)
            if progress.score is not None:
                curve.append((progress.step, progress.score))
                with disk_errors("cannot write the trial"):
                    write_json(folder / "result.json", {"curve": curve, "settings": asdict(settings)})
                report(progress.step, progress.score)

        started = time.monotonic()
        result = distill(self.decoder, search.targets, settings, device=search.device, report=on_progress)
        search.on_step(number, settings.steps, settings.steps)
        found = {"curve": curve, "score_db": result.score, "seconds": round(time.monotonic() - started, 1)}
        with disk_errors("cannot write the trial"):
            write_json(folder / "result.json", {**found, "settings": asdict(settings)})
        return result.score
