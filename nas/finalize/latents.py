"""Latents of the user's that are trained on beside the clips."""

from pathlib import Path

from rich.console import Console

from nas.data.latent_clips import LatentClip, open_latents
from nas.distillation.phases import Phase, Phases
from nas.teachers import Teacher
from nas.terminal.console import say
from nas.terminal.errors import UserError


def open_user_latents(console: Console, path: Path, teacher: Teacher, phases: Phases) -> tuple[LatentClip, ...]:
    """The latents of a file or folder, which is said.

    Args:
        console: where it is said.
        path: the file or folder.
        teacher: what will decode them.
        phases: that will train on them.

    Raises:
        UserError: a phase asks for a video, a file cannot be used, or no crop of any phase fits into its latents.
    """
    for phase in phases.phases:
        # Where `teacher_weight` is 0, and a critic would look at the video, this is not.
        if phase.distillation(0).truth_weight:
            raise UserError(
                f"the phase '{phase.name}' has a truth_weight, and --latents have no video: set it to 0 in a --recipe "
                f"FILE, or leave --latents out"
            )
    asked = [phase.crops.settings(teacher) for phase in phases.phases]
    sizes = ", ".join(f"{format_size(phase, teacher)} ('{phase.name}')" for phase in phases.phases)
    found = open_latents(path, teacher.spec)
    for clip in found:
        if not any(clip.holds(crops.num_frames, crops.crop) for crops in asked):
            raise UserError(
                f"{clip.path} has latents of {_format(clip.size)} (t, h, w), too small for a crop: expected at least "
                f"{sizes}"
            )
    say(console, "latents", f"{path}: {len(found)} to train on")
    return found


def format_size(phase: Phase, teacher: Teacher) -> str:
    """Latent frames, height and width of the crops of a phase, for people.

    Raises:
        UserError: they are not on the teacher's grid.
    """
    crops = phase.crops.settings(teacher)
    try:
        return _format(teacher.latent_shape(crops.num_frames, crops.crop, crops.crop)[1:])
    except ValueError as error:
        raise UserError(f"crops of the phase '{phase.name}' do not fit {teacher.name}: {error}") from error


def _format(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
