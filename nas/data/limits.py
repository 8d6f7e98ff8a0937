"""Targets that are not begun: too large for the disk, for memory, or for what any set of them may take."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from nas.machine.memory import memory_limit
from nas.teachers import Teacher
from nas.terminal.errors import UserError


def refuse_too_large(size: int, splits: int, max_bytes: int) -> None:
    """UserError if `size` bytes, those of one crop in each of some splits, are more than is allowed."""
    if size > max_bytes:
        raise UserError(
            f"one crop for each of {splits} splits would take {size / 1e9:.1f} GB, more than the "
            f"{max_bytes / 1e9:.1f} GB allowed for targets: smaller or shorter crops are needed"
        )


def refuse_full_disk(folder: Path, size: int) -> None:
    """UserError if the disk of `folder` has no room for `size` bytes."""
    existing = next(place for place in folder.parents if place.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise UserError(
            f"targets need {size / 1e9:.1f} GB in {folder.parent}, but only {free / 1e9:.1f} GB are free: "
            f"free space, give fewer clips, or set NAS_CACHE to a folder on another disk"
        )


def memory_of_a_crop(teacher: Teacher, num_frames: int, crop: int, taps: Sequence[str], frames: bool) -> int:
    """Bytes of memory that encoding such a clip takes, and decoding what is wanted of it.

    Raises:
        UserError: its device has less.
    """
    needed, there = teacher.memory(num_frames, crop, crop, taps, frames=frames), memory_limit(teacher.device)
    if needed > there:
        raise UserError(
            f"clips of {crop}x{crop} and {num_frames} frames need about {needed / 1e9:.1f} GB of memory with "
            f"{teacher.name}, there are {there / 1e9:.1f} GB on {teacher.device.type}: smaller or shorter crops, or a "
            f"larger machine, are needed"
        )
    return needed


def without_memory(teacher: Teacher, num_frames: int, crop: int) -> UserError:
    """The error for memory that runs out although there should be enough: others use it, too."""
    return UserError(
        f"{teacher.device.type} is out of memory with one clip of {crop}x{crop} and {num_frames} frames and "
        f"{teacher.name}: end what else uses it, or use a larger machine; what is computed so far is kept"
    )
