"""Who is judged: the students of some model folders, and the teacher that all of them have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.model import TurboVAED
from nas.model.folder import check_model, load_model, read_record
from nas.model.record import ModelRecord
from nas.teachers import Teacher, load_teacher
from nas.terminal.errors import UserError

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""The next chunk and the state that the chunk before left (None to start) -> what it becomes, and the new state."""


@dataclass(frozen=True)
class Student:
    """A finished model in its folder."""

    name: str
    """What it is called in tables: the name of the folder, or its path where two have the same name."""
    folder: Path
    """Where it is from."""
    model: TurboVAED
    """The model, on the device."""
    record: ModelRecord | None
    """What finalize has noted of it; None if it was saved by other means."""

    @property
    def streams(self) -> bool:
        """Whether it decodes chunk by chunk with the frames of one pass."""
        config = self.model.decoder.config
        return config.temporal_mode == "causal" and config.latents.frame_rule != "leading_if_odd"


@dataclass(frozen=True)
class Contestants:
    """A teacher and its students, ready to run."""

    teacher: Teacher
    """The teacher of all students."""
    students: tuple[Student, ...]
    """The students; differences are to the first."""

    @property
    def streamed(self) -> bool:
        """Whether clips go through all of them chunk by chunk: memory is then the same for a clip of any length."""
        return self.teacher.streams and all(student.streams for student in self.students)

    @property
    def encoder(self) -> Step:
        """Video in [-1, 1] -> latents; of whole clips alone where not all of them stream."""
        teacher = self.teacher
        return teacher.encode_chunk if self.streamed else lambda video, _: (teacher.encode(video), None)

    @property
    def decoders(self) -> tuple[Step, ...]:
        """Latents -> frames in [-1, 1]: the teacher's decoder and those of the students, likewise."""
        teacher = self.teacher
        if self.streamed:
            return (teacher.decode_chunk, *(_streaming(student.model) for student in self.students))
        return (lambda latents, _: (teacher.decode(latents), None), *(_whole(each.model) for each in self.students))


def _streaming(model: TurboVAED) -> Step:
    def step(latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        frames, state = model.decoder.stream(latents.to(model.device, model.dtype), state)
        return frames.float().clamp(-1, 1), state

    return step


def _whole(model: TurboVAED) -> Step:
    def step(latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        (frames,) = model.decode(latents.to(model.device), return_dict=False)
        return frames.float(), state

    return step


def open_contestants(folders: Sequence[Path], teacher_weights: Path | None, device: torch.device) -> Contestants:
    """Load the models and the teacher that they were distilled from.

    Args:
        folders: of the models.
        teacher_weights: of the teacher; None: where the record of the first model says that they were, or else the
            published ones.
        device: where everything runs.

    Raises:
        UserError: a folder holds no whole model, the models are of several teachers, the teacher is not here, or it is
            not the one that they were distilled from.
    """
    students = tuple(_open(folder, name, device) for folder, name in zip(folders, _names(folders), strict=True))
    first, *others = students
    name = first.model.config.teacher
    for student in others:
        if student.model.config.teacher != name:
            raise UserError(
                f"{student.folder} is a student of {student.model.config.teacher}, {first.folder} of {name}: give "
                f"models of one teacher"
            )
    try:
        teacher = load_teacher(name, teacher_weights or _noted_weights(first), device)
    except UserError as error:
        raise UserError(f"{first.folder} is judged against its teacher, which is not here: {error}") from error
    for student in students:
        _check_teacher(teacher, student)
    return Contestants(teacher, students)


def _names(folders: Sequence[Path]) -> list[str]:
    names = [folder.absolute().name for folder in folders]
    if len(set(map(Path.resolve, folders))) < len(folders):
        raise UserError(f"a model is given twice ({', '.join(map(str, folders))}): give each once")
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, folders, strict=True)]


def _open(folder: Path, name: str, device: torch.device) -> Student:
    model, record = load_model(folder), read_record(folder)
    if record is not None:
        check_model(folder, record)
    return Student(name, folder, model.to(device), record)


def _noted_weights(student: Student) -> Path | None:
    """The path of the teacher's weights, if it is noted and they are still there."""
    source = student.record.teacher.source if student.record else ""
    return Path(source) if source and Path(source).exists() else None


def _check_teacher(teacher: Teacher, student: Student) -> None:
    ours, theirs = student.model.decoder.config.latents, teacher.spec
    shape = "{0.channels} channels, {0.temporal}x{0.spatial}x{0.spatial}, frame rule '{0.frame_rule}'".format
    if shape(ours) != shape(theirs):
        raise UserError(f"{student.folder} decodes latents of {shape(ours)}, {teacher.name} has {shape(theirs)}")
    if student.record is not None and student.record.teacher.sha256 != teacher.weights_hash:
        raise UserError(
            f"{student.folder} was distilled from other weights of {teacher.name} ({student.record.teacher.source}) "
            f"than those in {teacher.source}: give them with --teacher-weights"
        )
