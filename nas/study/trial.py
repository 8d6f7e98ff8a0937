"""A candidate decoder: its latency on the device, its score after a short distillation, its files."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from nas.data.targets import Targets
from nas.distillation.distill import Progress, distill
from nas.distillation.recipes import distill_settings, training_device
from nas.export.lint import lint
from nas.latency import LatencyRecord, Workload
from nas.latency.devices import LatencyDevice
from nas.machine.files import disk_errors, write_json
from nas.study.run import Run
from search_spaces import Decoder, DecoderConfig


def build(config: DecoderConfig, seed: int) -> Decoder:
    """A fresh decoder; the same weights for the same seed."""
    torch.manual_seed(seed)
    return Decoder(config)


def count_parameters(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class ShortDistillation:
    """The study's evaluator: measures and trains candidates, writes `trials/<n>/`."""

    run: Run
    targets: Targets
    device: LatencyDevice
    workload: Workload
    on_step: Callable[[int, int, int], None]
    """`on_step(trial number, step, steps)`, often enough for a progress display."""

    def latency(self, config: DecoderConfig) -> LatencyRecord:
        """Latency on the device that the budget is for."""
        with torch.device("cpu" if self.device.needs_weights else "meta"):
            decoder = Decoder(config)
        return self.device.latency(decoder, config.latents, self.workload)

    def parameters(self, config: DecoderConfig) -> int:
        """Number of parameters."""
        with torch.device("meta"):
            return count_parameters(Decoder(config))

    def obstacle(self, config: DecoderConfig) -> str:
        """Why it cannot be exported to Core ML; empty if it can."""
        return "; ".join(lint(config, self.workload).problems)

    def score(self, number: int, config: DecoderConfig, report: Callable[[int, float], None]) -> float:
        """PSNR in dB against the teacher after a short distillation."""
        settings = distill_settings(self.run.settings.steps, self.run.settings.seed)
        folder = self.run.trial_folder(number)
        with disk_errors("cannot write the trial"):
            write_json(folder / "config.json", config.to_dict())
        curve: list[tuple[int, float]] = []

        def on_progress(progress: Progress) -> None:
            self.on_step(number, progress.step, progress.steps)
            if progress.score is not None:
                curve.append((progress.step, progress.score))
                write_json(folder / "result.json", {"curve": curve, "settings": asdict(settings)})
                report(progress.step, progress.score)

        started = time.monotonic()
        result = distill(
            build(config, settings.seed), self.targets, settings, device=training_device(), report=on_progress
        )
        found = {"curve": curve, "score_db": result.score, "seconds": round(time.monotonic() - started, 1)}
        with disk_errors("cannot write the trial"):
            write_json(folder / "result.json", {**found, "settings": asdict(settings)})
        return result.score
