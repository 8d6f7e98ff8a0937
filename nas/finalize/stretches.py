"""The phases of a full distillation with what they train on."""

from functools import partial

from rich.console import Console

from nas.data.live_samples import open_training_targets
from nas.data.settings import MAX_BYTES
from nas.data.splits import ClipSet
from nas.distillation.phases import Phases
from nas.finalize.job import Stretch
from nas.finalize.latents import format_size
from nas.teachers import Teacher
from nas.terminal.console import progress, say, warn
from nas.terminal.errors import UserError


def open_stretches(
    console: Console,
    teacher: Teacher,
    clips: ClipSet,
    phases: Phases,
    steps: int | None,
    *,
    seed: int,
    max_bytes: int = MAX_BYTES,
) -> tuple[Stretch, ...]:
    """The phases, without those that no clip is long enough for, which is said.

    Args:
        console: where it is said.
        teacher: what makes the targets.
        clips: what they are cut from, with latents of the user's if there are any.
        phases: what is asked for.
        steps: of all phases together; None: as many as they ask for.
        seed: of the distillation.
        max_bytes: of the crops of a phase that take more, the last ones are kept.

    Raises:
        UserError: no clip is long enough for any of them; whatever `open_training_targets` refuses.
    """
    usable = {}
    for phase in phases.phases:
        asked = phase.crops.settings(teacher)
        frames = asked.num_frames
        found = clips.at_least(frames, asked.crop)
        if found.train and found.score:
            usable[phase.name] = phase, found
        else:
            warn(console, f"the phase '{phase.name}' is left out: it takes clips of {frames} frames")
            continue
        if small := len(clips.latents) - len(found.latents):
            size = format_size(phase, teacher)
            warn(
                console, f"the phase '{phase.name}' goes without {small} of --latents: its crops are of {size} latents"
            )
    if not usable:
        raise UserError("no clip is long enough for the recipe: give longer videos, or a --recipe of shorter clips")
    stretches = []
    for phase in Phases(tuple(phase for phase, _ in usable.values())).scaled(steps).phases:
        crops, long_enough = phase.crops, usable[phase.name][1]
        with progress(console, "targets", f"for training: {phase.name}") as advance:
            announce = partial(say, console, "targets")
            made_of = teacher, long_enough, crops.settings(teacher), advance, announce
            targets = open_training_targets(*made_of, max_bytes=max_bytes, max_crops=crops.most)
        stretches.append(Stretch(phase.name, targets, phase.distillation(seed)))
    return tuple(stretches)
