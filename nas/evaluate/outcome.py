"""Everything that an evaluation found, as JSON primitives, and its pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from nas.evaluate.contestants import Contestants
from nas.evaluate.judge import Verdict, run
from nas.evaluate.material import Material
from nas.evaluate.settings import Settings
from nas.evaluation.confidence import LEVEL, RESAMPLES, SEED
from nas.evaluation.pictures import difference, side_by_side, strip
from nas.evaluation.results import ClipEvaluation, Quality
from nas.evaluation.rfvd import FRAMES, distance
from nas.evaluation.summary import differences, intervals, relative_flicker
from nas.machine.files import check_output, disk_errors, write_bytes, write_json
from nas.machine.temporary import put_in_place, temporary_folder
from nas.machine.versions import versions
from nas.metrics import lpips_off
from nas.model.folder import is_model_folder
from nas.terminal.errors import UserError

FILE_NAME = "evaluation.json"
"""File of the numbers in the folder of an evaluation."""
_KIND = "evaluation of models"
"""By what such a file is told from others of this name."""
_PICTURED = 49
"""Frames of a clip that are shown."""


@dataclass(frozen=True)
class Outcome:
    """All verdicts, and what they are about."""

    who: Contestants
    """The teacher and the students."""
    material: tuple[Material, ...]
    """What they were given."""
    settings: Settings
    """What of it was judged."""
    latents: str
    """Where the latents are from, in words."""
    verdicts: tuple[Verdict, ...]
    """One for each clip."""

    def column(self, student: int | None) -> list[ClipEvaluation]:
        """One student on every clip; None: the teacher."""
        return [each.teacher if student is None else each.students[student] for each in self.verdicts]

    def to_teacher(self, student: int) -> list[Quality | None]:
        """A student against the teacher, clip by clip."""
        return [clip.to_teacher for clip in self.column(student)]

    def to_truth(self, student: int | None) -> list[Quality | None]:
        """A student, or the teacher (None), against the video, clip by clip."""
        return [clip.to_truth for clip in self.column(student)]

    def not_measured(self) -> list[str]:
        """What is missing and why, one line each."""
        lines = [line for line in (lpips_off("alex"), lpips_off("vgg")) if line]
        if self.to_truth(None)[0] is None:
            lines.append("nothing against the video: there is none for these latents")
        if self.rfvd(None) is None:
            lines.append("rFVD: it takes the weights of I3D (--i3d FILE) and at least two videos of 9 frames")
        return lines

    def rfvd(self, student: int | None) -> dict[str, Any] | None:
        """rFVD of a student, or of the teacher (None), with what it is of; None where it was not computed."""
        row = 1 if student is None else student + 2
        found = distance([verdict.features for verdict in self.verdicts], row, reference=0)
        return None if found is None else {"value": found[0], "clips": found[1], "frames": FRAMES}

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        who = self.who
        clips = [
            {**material.facts(), "height": verdict.size[0], "width": verdict.size[1]}
            for material, verdict in zip(self.material, self.verdicts, strict=True)
        ]
        return {
            "kind": _KIND,
            "latents": self.latents,
            "settings": asdict(self.settings),
            "streamed": who.streamed,
            "confidence": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "drawn": "clips"},
            "clips": clips,
            "teacher": {"name": who.teacher.name, "source": who.teacher.source, "sha256": who.teacher.weights_hash}
            | {"to_truth": _plain(intervals(self.to_truth(None))), "rfvd": self.rfvd(None)}
            | {"clips": _clips(self.column(None))},
            "models": [self._model(index) for index in range(len(who.students))],
            "not_measured": self.not_measured(),
            "versions": versions(),
        }

    def _model(self, index: int) -> dict[str, Any]:
        student = self.who.students[index]
        relative = relative_flicker(self.column(index), self.column(None))
        first = None
        if index:
            to_teacher = differences(self.to_teacher(index), self.to_teacher(0))
            to_truth = differences(self.to_truth(index), self.to_truth(0))
            first = {"to_teacher": _plain(to_teacher), "to_truth": _plain(to_truth)}
        return {
            "name": student.name,
            "folder": str(student.folder),
            "architecture": student.model.decoder.config.digest(),
            "summary": student.model.decoder.config.summary(),
            "weights_sha256": student.record.weights_sha256 if student.record else "",
            "to_teacher": _plain(intervals(self.to_teacher(index))),
            "to_truth": _plain(intervals(self.to_truth(index))),
            "rfvd": self.rfvd(index),
            "flicker_relative_to_teacher": None if relative is None else asdict(relative),
            "difference_to_first_model": first,
            "clips": _clips(self.column(index)),
        }

    def extremes(self, student: int) -> dict[str, int]:
        """Index of the clip on which a student is furthest from the teacher, and of the one in the middle."""
        decibels = [quality.psnr if quality else 0.0 for quality in self.to_teacher(student)]
        order = sorted(range(len(decibels)), key=lambda index: decibels[index])
        return {"worst": order[0]} | ({"median": order[len(order) // 2]} if len(order) > 1 else {})


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name: asdict(each) for name, each in found.items()}


def _clips(column: Sequence[ClipEvaluation]) -> list[dict[str, Any]]:
    return [asdict(clip) for clip in column]


def check_out(out: Path) -> None:
    """Refuse a folder that an evaluation cannot be written to, before any work is done.

    Raises:
        UserError: nothing can be written there, or something else is there already.
    """
    doing = f"cannot write the evaluation to {out}"
    check_output(out, doing)
    with disk_errors(doing):
        taken = out.is_dir() and any(out.iterdir())
        ours = (out / FILE_NAME).is_file() and _KIND in (out / FILE_NAME).read_text(errors="replace")[:100]
    if taken and (is_model_folder(out) or not ours):
        raise UserError(f"{doing}: something else is there: choose another --out")


def write_outcome(outcome: Outcome, out: Path) -> None:
    """Write numbers and pictures: they are there complete, or not at all; what an evaluation left there is replaced.

    Raises:
        UserError: the disk does not take it.
    """
    doing = f"cannot write the evaluation to {out}"
    with disk_errors(doing):
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent) as work, disk_errors(doing, work):
            new = work / "evaluation"
            new.mkdir()
            write_json(new / FILE_NAME, outcome.to_dict())
            for name, data in _pictures(outcome):
                write_bytes(new / name, data)
            put_in_place(new, out)


def _pictures(outcome: Outcome) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all pictures; the clips are run once more for them."""
    for index, student in enumerate(outcome.who.students):
        stem = student.name.replace("/", "_") + "-" if len(outcome.who.students) > 1 else ""
        for which, clip in outcome.extremes(index).items():
            rows = _rows(outcome, clip, index)
            yield f"{stem}{which}.png", strip(rows)
            yield f"{stem}{which}.mp4", side_by_side(rows)


def _rows(outcome: Outcome, clip: int, student: int) -> list[torch.Tensor]:
    """The first frames of a clip: the video if there is one, teacher, student, their difference."""
    kept: list[tuple[torch.Tensor, ...]] = []
    for decode in islice(outcome.material[clip].decodes(outcome.who), 1):
        for shown in run(outcome.who, decode):
            filmed = () if shown.video is None else (shown.video,)
            # Half precision has more steps than a picture.
            kept.append(tuple(each.half().cpu() for each in (*filmed, shown.teacher, shown.students[student])))
            if sum(each[-1].shape[2] for each in kept) >= _PICTURED:
                break
    rows = [torch.cat(row, dim=2)[:, :, :_PICTURED] for row in zip(*kept, strict=True)]
    return [*rows, difference(rows[-1], rows[-2])]
