"""From a candidate to a finished model: full distillation, evaluation, latency, model folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nas.data.targets import Targets
from nas.distillation import DistillResult, DistillSettings, Progress, distill
from nas.distillation.recipes import distill_settings, training_device
from nas.evaluation.baselines import linear_patches, nearest_linear_rgb
from nas.evaluation.comparison import Row
from nas.evaluation.quality import Evaluation, evaluate, evaluate_teacher
from nas.export.package import ExportError, export_decoder, model_metadata
from nas.export.settings import ExportSettings
from nas.latency import LatencyRecord, Workload, list_operations, measure
from nas.latency.devices import LatencyDevice
from nas.latency.measurement.host import MIN_ROUNDS
from nas.machine.memory import memory_limit
from nas.machine.versions import versions
from nas.model import TurboVAED
from nas.model.folder import read_numbers, write_model_folder
from nas.study.outcomes import Outcome
from nas.study.run import Run
from nas.study.trial import build, count_parameters
from nas.teachers import Teacher
from nas.terminal.console import format_seconds, progress, say, warn
from search_spaces import Decoder


@dataclass(frozen=True)
class Finisher:
    """Makes models of candidates of one run."""

    console: Console
    run: Run
    teacher: Teacher
    training: Targets
    unseen: Targets
    phone: LatencyDevice
    """What latency is predicted for, beside the one that is measured here."""
    workload: Workload
    clips: str
    """Where the clips are from."""
    steps: int
    """Of the full distillation."""
    out: Path
    """Where model folders go."""

    def baselines(self) -> list[Row]:
        """What linear maps of the latents show, without any decoder."""
        linear = {"nearest linear RGB": nearest_linear_rgb, "linear patches": linear_patches}
        return [Row(name, evaluate(fit(self.training), self.unseen)) for name, fit in linear.items()]

    def teacher_row(self) -> Row:
        """The teacher itself. Nothing is predicted for it: decoders of teachers are no programs that phones take."""
        skeleton = self.teacher.skeleton_decoding()
        return Row(
            f"teacher {self.teacher.name}",
            evaluate_teacher(self.unseen),
            parameters=self.teacher.decoder_parameters,
            macs_per_frame=self._macs_per_frame(skeleton),
            measured=self._teacher_measured(),
        )

    def finish(self, candidate: Outcome) -> Row:
        """Distil, evaluate, measure, write; a model that is already there with these settings is only read."""
        settings = distill_settings(self.steps, self.run.settings.seed)
        folder = self.out / f"{self.teacher.name}-{candidate.config.digest()}"
        identity = {"distillation": asdict(settings) | {"betas": list(settings.betas)}, "targets": self.training.key}
        identity["unseen"] = self.unseen.key
        numbers = read_numbers(folder)
        if numbers is None or any(numbers.get(key) != value for key, value in identity.items()):
            result = self._distill(candidate, settings)
            numbers = identity | self._numbers(candidate, result)
            numbers["core_ml"], package = self._export(candidate, result.decoder, numbers["evaluation"])
            model = TurboVAED(architecture=candidate.config.to_dict(), teacher=self.teacher.name)
            model.decoder.load_state_dict(result.decoder.state_dict())
            write_model_folder(folder, model, numbers, self._card(candidate, numbers), package)
        say(self.console, "saved", str(folder))
        return _row(candidate, numbers)

    def _distill(self, candidate: Outcome, settings: DistillSettings) -> DistillResult:
        checkpoint = (
            self.run.folder / "finalize" / f"{candidate.config.digest()}-{self.training.key}-{settings.steps}.pt"
        )
        with progress(self.console, "distilling") as advance:

            def report(state: Progress) -> None:
                advance(state.step, state.steps)

            result = distill(
                build(candidate.config, settings.seed),
                self.training,
                settings,
                device=training_device(),
                checkpoint=checkpoint,
                report=report,
            )
        say(self.console, "distilled", f"{settings.steps} steps in {format_seconds(result.seconds)}")
        return result

    def _numbers(self, candidate: Outcome, result: DistillResult) -> dict[str, Any]:
        decoder = result.decoder.cpu().eval()
        measured = self._measured(decoder, "of the student, here")
        with progress(self.console, "evaluation") as advance, torch.inference_mode():
            evaluation = evaluate(decoder, self.unseen, progress=advance)
        return {
            "teacher": {"name": self.teacher.name, "source": self.teacher.source, "sha256": self.teacher.weights_hash},
            "architecture": candidate.config.digest(),
            "parameters": count_parameters(decoder),
            "macs_per_frame": self._macs_per_frame(decoder),
            "latency_measured": measured.to_dict(),
            "latency_predicted": self._predicted(decoder).to_dict(),
            "search_score_db": candidate.score,
            "curve": result.curve,
            "evaluation": evaluation.to_dict(),
            "teacher_evaluation": evaluate_teacher(self.unseen).to_dict(),
            "versions": versions(),
        }

    def _export(
        self, candidate: Outcome, decoder: Decoder, evaluation: dict[str, Any]
    ) -> tuple[dict[str, Any], Path | None]:
        """A Core ML package of the timed decode, and what to say about it; if there can be none, why."""
        load = self.workload
        settings = ExportSettings(load.height, load.width, load.num_frames)
        path = self.run.folder / "finalize" / candidate.config.digest() / settings.file_name()
        metadata = model_metadata(decoder, self.teacher.name, evaluation)
        try:
            with progress(self.console, "Core ML", "converting and proving"):
                report = export_decoder(decoder, settings, path, metadata=metadata, latents=self._real_latents())
        except ExportError as error:
            warn(self.console, f"no Core ML package: {error}")
            return {"error": str(error)}, None
        say(self.console, "Core ML", report.describe())
        return {"packages": {path.name: {"summary": report.describe(), **report.to_dict()}}}, path

    def _real_latents(self) -> torch.Tensor:
        """Of one unseen sample, `(1, c, t, h, w)`."""
        return self.unseen.split("test").batch([0], "cpu").latents

    def _teacher_measured(self) -> LatencyRecord | None:
        """Of the teacher, here; None, with a warning, where its decode does not fit into memory."""
        load, there = self.workload, memory_limit(self.teacher.device)
        needed = self.teacher.memory(load.num_frames, load.height, load.width)
        if needed > there:
            size = f"{load.height}x{load.width} x {load.num_frames} frames"
            sizes = f"about {needed / 1e9:.1f} GB of memory, there are {there / 1e9:.1f} GB"
            warn(self.console, f"the teacher's latency is not measured: {size} need {sizes}")
            return None
        return self._measured(self.teacher.decoding(), "of the teacher, here")

    def _measured(self, decoder: torch.nn.Module, what: str) -> LatencyRecord:
        with progress(self.console, "latency", what) as advance:
            # At full size on a CPU a decode takes many seconds: two of them then have to do.
            return measure(
                decoder,
                self.teacher.spec,
                self.workload,
                time_limit_s=2.0,
                on_round=lambda count: advance(count, max(count, MIN_ROUNDS)),
            )

    def _predicted(self, decoder: torch.nn.Module) -> LatencyRecord:
        return self.phone.latency(decoder, self.teacher.spec, self.workload)

    def _macs_per_frame(self, decoder: torch.nn.Module) -> float:
        load = self.workload
        shape = (1, *self.teacher.spec.latent_shape(load.num_frames, load.height, load.width))
        return sum(operation.macs for operation in list_operations(decoder, shape)) / load.num_frames

    def _card(self, candidate: Outcome, numbers: dict[str, Any]) -> dict[str, Any]:
        settings = self.run.settings
        unseen = Evaluation.from_dict(numbers["evaluation"])
        assert unseen.to_teacher is not None
        of_teacher = Evaluation.from_dict(numbers["teacher_evaluation"])
        return {
            "title": f"Turbo-VAED decoder for {self.teacher.name}",
            "teacher": self.teacher.name,
            "source": self.teacher.source,
            "licence": self.teacher.licence,
            "channels": self.teacher.spec.channels,
            "summary": candidate.config.summary(),
            "temporal_mode": candidate.config.temporal_mode,
            "parameters": numbers["parameters"],
            "gmacs": numbers["macs_per_frame"] / 1e9,
            "budget": f"{settings.budget} per frame at {self.workload.describe()}",
            "device": settings.device,
            "predicted": LatencyRecord.from_dict(numbers["latency_predicted"]).describe(),
            "measured": LatencyRecord.from_dict(numbers["latency_measured"]).describe(),
            "steps": self.steps,
            "clips": self.clips,
            "crops": sum(clip.crops for clip in unseen.clips),
            "unseen": ", ".join(clip.name for clip in unseen.clips),
            "to_teacher": unseen.to_teacher,
            "to_truth": unseen.to_truth,
            "of_teacher": of_teacher.to_truth,
        }


def _row(candidate: Outcome, numbers: dict[str, Any]) -> Row:
    return Row(
        f"#{candidate.number} {candidate.config.summary()}",
        Evaluation.from_dict(numbers["evaluation"]),
        parameters=numbers["parameters"],
        macs_per_frame=numbers["macs_per_frame"],
        measured=LatencyRecord.from_dict(numbers["latency_measured"]),
        predicted=LatencyRecord.from_dict(numbers["latency_predicted"]),
    )
