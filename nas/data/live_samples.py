"""Samples that the teacher makes as training goes: for more crops than a disk is meant to hold.

Training draws from a reservoir that goes on slowly (`nas.data.order`), so that the teacher has one crop to make for
every ten samples. What it makes is kept in a folder with a bound, from which it is read again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from nas.data.clips import Clip
from nas.data.crop_cache import CropCache
from nas.data.crops import cut_crops
from nas.data.headers import read_header
from nas.data.latent_clips import LatentClip
from nas.data.limits import memory_of_a_crop, refuse_full_disk
from nas.data.make_targets import open_targets
from nas.data.one_crop import bytes_per_crop, targets_of
from nas.data.order import START, USES, from_reservoir, sample_at
from nas.data.pictures import NoPictureError
from nas.data.plan import Part, plan_of, total_crops
from nas.data.settings import MAX_BYTES, Split, TargetSettings
from nas.data.splits import ClipSet
from nas.data.targets import Samples, TargetBatch, Targets, stack_rows
from nas.machine.files import default_cache_dir
from nas.teachers import Teacher
from nas.terminal.console import format_bytes, format_count, format_some
from nas.terminal.errors import UserError

_FORMAT = 1
SCORED = 64
"""Crops to score on: of many clips, scoring on some of each would take longer than training."""
_HELD = 0.8
"""Share of the cache that the reservoir takes; the rest is room for what is made ahead."""


class LiveSamples:
    """Crops to train on, made when they are asked for.

    A crop that cannot be read is passed over for the same crop of the next clip, in every run alike, and noted.

    Args:
        teacher: what makes them.
        clips: what they are cut from, videos and latents.
        settings: how large they are, how many of each clip, and the seed.
        key: stands for everything that a crop depends on beside its clip.
        cache: where they are kept.
    """

    def __init__(
        self,
        teacher: Teacher,
        clips: tuple[Clip | LatentClip, ...],
        settings: TargetSettings,
        key: str,
        cache: CropCache,
    ) -> None:
        self._teacher, self._clips, self._settings = teacher, clips, settings
        self._key, self._cache = key, cache
        self._window = _window(teacher, settings, cache.max_bytes)
        self._lock = Lock()
        self._made = self._with_a_cut = 0
        self.left_out: dict[str, str] = {}
        """Clips of which a crop could not be read, and why."""

    @property
    def clip_names(self) -> tuple[str, ...]:
        """Name of the clip that each sample is from."""
        return tuple(clip.name for clip in self._clips for _ in range(self._settings.train_crops))

    def __len__(self) -> int:
        return len(self._clips) * self._settings.train_crops

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> TargetBatch:
        """The samples with these indices.

        Raises:
            UserError: no clip can be read, one has changed since it was looked into, memory or disk does not suffice.
        """
        return stack_rows([self._row(index) for index in indices], device)

    def order(self, step: int, batch_size: int, seed: int) -> list[int]:
        """Drawn from a reservoir, which the samples come into one after the other, the same ones for every seed."""
        places = from_reservoir(len(self), self._window, batch_size, seed, step)
        return [sample_at(place, len(self), self._settings.seed) for place in places]

    def some(self, count: int) -> list[int]:
        """Of those that the reservoir begins with: no more are made before training begins."""
        return [sample_at(place, len(self), self._settings.seed) for place in range(min(count, START, len(self)))]

    def _row(self, index: int) -> dict[str, Tensor]:
        for _ in self._clips:
            clip_number, crop = divmod(index, self._settings.train_crops)
            clip = self._clips[clip_number]
            try:
                return self._crop(clip, crop)
            except NoPictureError as error:
                _refuse_changed(clip, error)
                self.left_out[clip.name] = str(error)
            index = (index + self._settings.train_crops) % len(self)
        raise UserError(f"no clip is left to train on ({self._named()}): give other videos with --clips")

    def _crop(self, clip: Clip | LatentClip, number: int) -> dict[str, Tensor]:
        """The tensors of a crop, without an axis for the batch."""
        name = f"{self._key}-{hashlib.sha256(clip.identity.encode()).hexdigest()[:16]}-{number}"
        if (found := self._cache.read(name)) is not None:
            return found
        part = Part("train", clip, self._settings.train_crops)
        (crop,) = cut_crops(part, clip.identity, self._settings, [number])
        with self._lock:  # models of teachers keep what they have seen, and a device has one memory
            if (found := self._cache.read(name)) is not None:
                return found
            made = targets_of(self._teacher, crop, self._settings)
            row = {name: tensor[0].contiguous() for name, tensor in made.items()}
            self._cache.write(name, row)
            self._made, self._with_a_cut = self._made + 1, self._with_a_cut + crop.has_cut
        return row

    def _named(self) -> str:
        return format_some([f"{name} {reason}" for name, reason in self.left_out.items()])

    def notes(self) -> list[str]:
        """What there is to say of the crops that were made, for people."""
        found = []
        if self.left_out:
            found.append(f"crops of {len(self.left_out)} clips left out: {self._named()}")
        if self._with_a_cut:
            found.append(f"{self._with_a_cut} of {self._made} crops that were made have a scene cut in them")
        return found


def open_training_targets(
    teacher: Teacher,
    clips: ClipSet,
    settings: TargetSettings,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] | None = None,
    cache: Path | None = None,
    max_bytes: int = MAX_BYTES,
    max_crops: int | None = None,
) -> Targets:
    """Targets to train on: computed before if all that is asked for may be kept, else made as training goes.

    Args:
        teacher, clips, settings, progress, announce, cache: as for `open_targets`.
        max_bytes: how much may be kept. What is trained on depends on it, if that is less than all.
        max_crops: crops that are enough, if they may be kept; None: all that are asked for.

    Raises:
        UserError: as `open_targets`.
    """
    asked = total_crops(plan_of(clips, settings))
    wanted = asked if max_crops is None else min(asked, max_crops)
    if wanted * bytes_per_crop(teacher, settings) <= max_bytes:
        return open_targets(teacher, clips, settings, progress, announce, cache, max_bytes, max_crops)
    return _open_live(teacher, clips, settings, progress, announce or (lambda line: None), cache, max_bytes)


def _open_live(
    teacher: Teacher,
    clips: ClipSet,
    settings: TargetSettings,
    progress: Callable[[int, int], None] | None,
    announce: Callable[[str], None],
    cache: Path | None,
    max_bytes: int,
) -> Targets:
    size = bytes_per_crop(teacher, settings)
    if _window(teacher, settings, max_bytes) < 2:
        raise UserError(
            f"a crop takes {format_bytes(size)}, too much for a cache of {format_bytes(max_bytes)}: give a larger "
            f"--cache-size, or smaller crops with --recipe FILE"
        )
    scored = replace(settings, train_crops=0, sampled=False)
    kept = open_targets(teacher, clips, scored, progress, announce, cache, max_bytes, SCORED)
    # Refused where there is too little.
    memory_of_a_crop(teacher, settings.num_frames, settings.crop, settings.taps, settings.frames)
    folder = (cache or default_cache_dir()) / "crops"
    # What a crop depends on beside its clip: those of a video stay when another one is added.
    made_with = _digest([_FORMAT, teacher.weights_hash, str(teacher.dtype), settings.identity()])
    crops = CropCache(folder, max_bytes)
    refuse_full_disk(folder / made_with, max_bytes - crops.held)
    train = LiveSamples(teacher, clips.trained_on, settings, made_with, crops)
    count = f"{format_count(len(train))} crops of {len(clips.trained_on)} clips"
    announce(
        f"{count}, made as training goes, one for {USES} samples; at most {format_bytes(max_bytes)} of them kept in "
        f"{folder}"
    )
    splits: dict[Split, Samples] = kept.splits | {"train": train}
    window, identities = _window(teacher, settings, max_bytes), [clip.identity for clip in clips.trained_on]
    return replace(kept, key=_digest([made_with, window, identities, kept.key]), splits=splits)


def _digest(content: list[object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _window(teacher: Teacher, settings: TargetSettings, max_bytes: int) -> int:
    """Crops that the reservoir holds."""
    return int(_HELD * max_bytes / bytes_per_crop(teacher, settings))


def _refuse_changed(clip: Clip | LatentClip, error: NoPictureError) -> None:
    """UserError if a file that cannot be read is another than it was, or none any more."""
    try:
        changed = read_header(clip.path).content != clip.content
    except OSError:
        changed = True
    if changed:
        raise UserError(f"{clip.path} has changed meanwhile: restore it, or start anew") from error
