"""Running the contestants on the material, and judging what they give."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nas.evaluate.contestants import Contestants
from nas.evaluate.material import Chunk, Material
from nas.evaluation.meter import Meter
from nas.evaluation.quality import mean_quality
from nas.evaluation.results import ClipEvaluation, Quality
from nas.evaluation.rfvd import FirstFrames
from nas.metrics.i3d import I3D
from nas.terminal.errors import UserError


@dataclass(frozen=True)
class Shown:
    """The same frames of everybody, `(1, 3, t, h, w)` in [-1, 1]."""

    video: Tensor | None
    """The video; None for latents that there is none of."""
    teacher: Tensor
    """The teacher's frames."""
    students: tuple[Tensor, ...]
    """Those of each student."""


@dataclass(frozen=True)
class Verdict:
    """Everybody on one clip."""

    size: tuple[int, int]
    """Height and width of the frames that were judged."""
    teacher: ClipEvaluation
    """The teacher, against the video alone."""
    students: tuple[ClipEvaluation, ...]
    """Each student."""
    features: Tensor | None = None
    """What I3D answers to the first frames, `(n, 400)`: the video, the teacher, the students; None where there is no
    video, or too little of it."""


def judge(
    who: Contestants,
    material: Material,
    done: Callable[[int], None] = lambda frames: None,
    i3d: I3D | None = None,
) -> Verdict:
    """Judge everybody on one clip; memory does not grow with its length where all of them stream.

    Args:
        who: the teacher and its students.
        material: the clip.
        done: called with the number of frames that were judged, chunk by chunk.
        i3d: the network of rFVD, if that is wanted.

    Raises:
        UserError: a student gives frames that are not finite or of another size, or a clip is too large for memory.
    """
    spec = who.teacher.spec
    columns: list[tuple[list[Quality], list[Quality]]] = [([], []) for _ in (who.teacher, *who.students)]
    size, decodes, begun = (0, 0), 0, FirstFrames()
    for decode in material.decodes(who):
        decodes += 1
        meters = [(Meter(spec), Meter(spec)) for _ in columns]
        for shown in run(who, decode):
            size = shown.teacher.shape[3], shown.teacher.shape[4]
            _add(who, material, meters, shown)
            if i3d is not None and decodes == 1 and shown.video is not None:
                begun.add([shown.video, shown.teacher, *shown.students])
            done(shown.teacher.shape[2])
        for column, pair in zip(columns, meters, strict=True):
            for qualities, meter in zip(column, pair, strict=True):
                qualities += [meter.quality()] if meter.frames else []
    teacher, *students = [ClipEvaluation(material.name, decodes, *map(_mean, column)) for column in columns]
    return Verdict(size, teacher, tuple(students), None if i3d is None else begun.features(i3d))


def _mean(qualities: Sequence[Quality]) -> Quality | None:
    return mean_quality(qualities) if qualities else None


@torch.inference_mode()
def run(who: Contestants, chunks: Iterator[Chunk]) -> Iterator[Shown]:
    """What everybody makes of one decode, chunk by chunk."""
    decoders = who.decoders
    states: list[Any] = [None] * len(decoders)
    for video, latents in chunks:
        frames = []
        for index, decoder in enumerate(decoders):
            given, states[index] = decoder(latents, states[index])
            frames.append(given)
        yield Shown(video, frames[0], tuple(frames[1:]))


def _add(who: Contestants, material: Material, meters: Sequence[tuple[Meter, Meter]], shown: Shown) -> None:
    names = (who.teacher.name, *(student.name for student in who.students))
    for name, frames, (to_teacher, to_truth) in zip(names, (shown.teacher, *shown.students), meters, strict=True):
        try:
            if frames is not shown.teacher:
                to_teacher.add(frames, shown.teacher)
            if shown.video is not None:
                to_truth.add(frames, shown.video)
        except ValueError as error:
            raise UserError(f"{name} cannot be judged on {material.name}: {error}") from error
