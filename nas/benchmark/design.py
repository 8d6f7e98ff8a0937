"""The benchmark's own settings: what decoders are distilled on, which are small enough, what their rows say."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from nas.benchmark.sample import BANDS, NOT_EXPORTABLE, Entry, draw_sample
from nas.benchmark.table import Curve, CurveTable, DecoderRow
from nas.data.settings import TargetSettings
from nas.distillation.recipes import CPU
from nas.distillation.settings import DistillSettings
from nas.latency import DEFAULT_DEVICE, MeasurementFailedError, Workload, list_operations, open_device
from nas.latency.measurement.host import describe_hardware
from nas.machine.device import choose_device
from nas.machine.files import disk_errors, read_json, write_json
from nas.machine.reading import understanding
from nas.machine.versions import versions
from nas.study.short_distillation import count_parameters
from nas.teachers import Teacher
from search_spaces import DecoderConfig, build_skeleton

WORKLOAD = Workload(512, 512, 17)
"""The decode whose latency puts a decoder into its band."""

_SCORES = 20
"""Scores of each curve, evenly spread, beside the one before the first step."""


def target_settings(teacher: Teacher) -> TargetSettings:
    """What a search on a CPU trains and scores on, and as many crops of the clips that choose nothing."""
    return replace(CPU.short, test=CPU.short.score).settings(teacher)


def distill_settings(steps: int) -> DistillSettings:
    """The recipe of a search on a CPU at this length, scored often."""
    return replace(CPU.distillation(steps, seed=0), report_every=max(1, steps // _SCORES))


def make_sample(
    teacher: Teacher, per_band: int, seed: int, most_gmacs: float, progress: Callable[[int, int], None]
) -> list[Entry]:
    """The sample for a teacher's latents.

    Args:
        teacher: only its geometry counts.
        per_band: decoders of each latency band.
        seed: random seed of the choice.
        most_gmacs: most multiply-accumulates of the forward pass of one training sample, in billions.
        progress: called with the number of decoders found and of all.
    """
    device = open_device(DEFAULT_DEVICE)

    def latency(config: DecoderConfig) -> float:
        try:
            return device.latency(build_skeleton(config), config.latents, WORKLOAD).ms_per_frame
        except MeasurementFailedError:
            return NOT_EXPORTABLE

    def affordable(config: DecoderConfig) -> bool:
        return step_gmacs(config, target_settings(teacher)) <= most_gmacs

    return draw_sample(teacher.spec, per_band, seed, affordable, latency, progress)


def open_sample(
    path: Path, teacher: Teacher, per_band: int, seed: int, most_gmacs: float, progress: Callable[[int, int], None]
) -> list[Entry]:
    """The sample in a file, drawn and kept there if the file is not there or is of another sample."""
    asked = {"latents": asdict(teacher.spec), "per_band": per_band, "seed": seed, "most_gmacs": most_gmacs}
    asked = json.loads(json.dumps(asked))
    with understanding(path, "delete it, it is drawn again"):
        known = read_json(path) if path.exists() else {}
        if known.get("asked") == asked:
            return [Entry(each[0], DecoderConfig.from_dict(each[1]), each[2]) for each in known["decoders"]]
    sample = make_sample(teacher, per_band, seed, most_gmacs, progress)
    decoders = [(entry.title, entry.config.to_dict(), entry.latency_ms) for entry in sample]
    with disk_errors("cannot write the sample of the benchmark"):
        write_json(path, {"asked": asked, "decoders": decoders})
    return sample


def step_gmacs(config: DecoderConfig, crops: TargetSettings) -> float:
    """Multiply-accumulates of the forward pass of one training sample, in billions."""
    shape = (1, *config.latents.latent_shape(crops.num_frames, crops.crop, crops.crop))
    return sum(operation.macs for operation in list_operations(build_skeleton(config), shape)) / 1e9


def describe_machine() -> str:
    """What the benchmark runs on."""
    return f"{describe_hardware(choose_device())}, one thread for each distillation"


def make_table(
    command: str, teacher: Teacher, targets: str, steps: int, sample: Sequence[Entry], curves: Sequence[Curve]
) -> CurveTable:
    """Everything that is known once all curves are there.

    Args:
        command: command line that made them.
        teacher: the teacher.
        targets: key of the targets.
        steps: length of a full distillation.
        sample: the decoders.
        curves: their distillations.
    """
    settings: dict[str, Any] = distill_settings(steps).identity()
    del settings["seed"]
    row = partial(_row, crops=target_settings(teacher))
    return CurveTable(
        command=command,
        machine=describe_machine(),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        versions=versions(),
        teacher=teacher.name,
        targets=targets,
        distillation=settings,
        bands=BANDS,
        decoders=tuple(map(row, sample)),
        curves=tuple(curves),
    )


def _row(entry: Entry, crops: TargetSettings) -> DecoderRow:
    config = entry.config
    return DecoderRow(
        title=entry.title,
        digest=config.digest(),
        summary=config.summary(),
        band=entry.band,
        latency_ms=round(entry.latency_ms, 3),
        parameters=count_parameters(build_skeleton(config)),
        step_gmacs=round(step_gmacs(config, crops), 4),
        shortcut=config.shortcut is not None,
        architecture=config.to_dict(),
    )
