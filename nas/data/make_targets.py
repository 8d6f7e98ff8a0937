"""Computing targets: once for a teacher, clips and settings, kept on disk, found again by content.

    <cache>/targets/<key>/index.json            what is there; written last
    <cache>/targets/<key>/<split>-<n>.safetensors   one clip: latents, truth, and if wanted frames, feature.<tap>

The key covers everything that the tensors depend on, so a changed clip, teacher or setting is another folder. A clip
that breaks where it is cut is left out, which the index says.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from nas.data.clips import Clip
from nas.data.crops import cut_crops
from nas.data.known_videos import KnownVideos
from nas.data.limits import refuse_full_disk, refuse_too_large
from nas.data.one_crop import bytes_per_crop, targets_of
from nas.data.pictures import NoPictureError
from nas.data.plan import Part, bounded, describe_choice, plan_of, total_crops
from nas.data.settings import MAX_BYTES, SPLITS, Split, TargetSettings
from nas.data.shards import is_whole, shard_note, write_shard
from nas.data.side_by_side import each_with_a_teacher, most_teachers
from nas.data.splits import ClipSet
from nas.data.targets import Samples, ShardSamples, Targets
from nas.machine.files import default_cache_dir, disk_errors, write_bytes
from nas.teachers import Teacher
from nas.terminal.console import format_bytes, format_some
from nas.terminal.errors import UserError

_FORMAT = 4
_LEFT_OUT = "left_out"
_CUTS = "crops_with_a_cut"
_IN_MEMORY = 2 * 1024**3
"""Sets up to this many bytes are kept in memory after the first use, and checked bit by bit when opened."""


def open_targets(
    teacher: Teacher,
    clips: ClipSet,
    settings: TargetSettings,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] | None = None,
    cache: Path | None = None,
    max_bytes: int = MAX_BYTES,
    max_crops: int | None = None,
) -> Targets:
    """The targets for a teacher and clips: from disk, or computed now and kept.

    A computation that was cut off goes on at the first missing clip; a broken file is computed again.

    Args:
        teacher: only its spec and the hash of its weights are read if everything is there.
        clips: what is encoded.
        settings: what is cut out.
        progress: called with the number of crops done and of all.
        announce: called with one line about what will be computed, where, and how large it is; before it with one about
            what was chosen, if that is not all.
        cache: folder for all targets; default `default_cache_dir()`.
        max_bytes: of a set that would be larger, fewer crops of each clip are kept, or one crop each of fewer clips.
        max_crops: the same for the number of crops, which the time depends on.

    Raises:
        UserError: a crop that is not on the teacher's grid or that its device has too little memory for, crops too
            large for one in each split, too little room on the disk, a disk that cannot be written, a file that has
            changed since it was looked into, a split of which every clip breaks.
    """
    try:
        teacher.latent_shape(settings.num_frames, settings.crop, settings.crop)
    except ValueError as error:
        raise UserError(f"targets do not fit {teacher.name}: {error}") from error
    say = announce or (lambda line: None)
    crop_bytes = bytes_per_crop(teacher, settings)
    plan = affordable(plan_of(clips, settings), settings.seed, crop_bytes, max_bytes, max_crops, say)
    digests = _digests(plan, cache)
    key = _content_key(teacher, plan, digests, settings)
    folder = (cache or default_cache_dir()) / "targets" / key
    names = _shard_names(part.split for part in plan)
    size = crop_bytes * total_crops(plan)
    left_out = _left_out_before(folder / "index.json", names)
    wanted = [number for number, name in enumerate(names) if name not in left_out]
    missing = [number for number in wanted if not is_whole(folder / names[number], check_data=size <= _IN_MEMORY)]
    with disk_errors(f"cannot write the targets to {folder}"):
        if missing:
            crops = sum(plan[number].crops for number in missing)
            at_once = most_teachers(teacher, settings)
            refuse_full_disk(folder, crop_bytes * crops)
            say(f"computing {max(crop_bytes * crops / 1e6, 1):.0f} MB once, kept in {folder}")
            left_out |= _compute(teacher, plan, digests, settings, folder, names, missing, at_once, progress)
        index = _index(teacher, plan, settings, names, left_out)
        if missing or not _holds(folder / "index.json", index):
            write_bytes(folder / "index.json", index)
    if left_out:
        say(_describe_left_out(plan, names, left_out))
    if cuts := sum(shard_note(folder / name, _CUTS) for name in names if name not in left_out):
        say(f"{cuts} of {total_crops(plan)} crops have a scene cut in them")
    return _open(folder, key, teacher, settings, plan, names, left_out, in_memory=size <= _IN_MEMORY)


def affordable(
    asked: Sequence[Part],
    seed: int,
    crop_bytes: int,
    max_bytes: int,
    max_crops: int | None,
    announce: Callable[[str], None],
) -> tuple[Part, ...]:
    """What is kept of a plan, announced if it is not all of it. The same on every machine, whatever its disk."""
    splits = len({part.split for part in asked})
    refuse_too_large(crop_bytes * splits, splits, max_bytes)
    fitting = max_bytes // crop_bytes
    most = fitting if max_crops is None else min(fitting, max(max_crops, splits))
    plan = bounded(asked, most, seed)
    if plan != asked:
        size = format_bytes(crop_bytes * total_crops(plan))
        bound = f"{size} of at most {format_bytes(max_bytes)}" if most == fitting else f"at most {most} crops"
        announce(f"{describe_choice(asked, plan)}: {bound}")
    return plan


def _digests(plan: Sequence[Part], cache: Path | None) -> list[str]:
    """What stands for the content of each part's clip, to the last bit."""
    videos = iter(KnownVideos(cache).digests([part.clip for part in plan if isinstance(part.clip, Clip)]))
    return [next(videos) if isinstance(part.clip, Clip) else part.clip.digest() for part in plan]


def _content_key(teacher: Teacher, plan: Sequence[Part], digests: Sequence[str], settings: TargetSettings) -> str:
    content = {
        "format": _FORMAT,
        "teacher": teacher.weights_hash,
        "precision": str(teacher.dtype),
        "clips": [(part.split, digest, part.crops) for part, digest in zip(plan, digests, strict=True)],
        "settings": settings.identity(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _shard_names(splits: Iterable[Split]) -> list[str]:
    return [f"{split}-{number:03d}.safetensors" for number, split in enumerate(splits)]


def _index(
    teacher: Teacher, plan: Sequence[Part], settings: TargetSettings, names: list[str], left_out: Mapping[str, str]
) -> bytes:
    """What the folder holds and what it lacks; depends on nothing but what the key covers."""
    shards = {name: {"split": part.split, "crops": part.crops} for name, part in zip(names, plan, strict=True)}
    index = {"teacher_sha256": teacher.weights_hash, "settings": settings.identity(), "shards": shards}
    if left_out:
        index |= {_LEFT_OUT: dict(left_out)}
    return (json.dumps(index, indent=2) + "\n").encode()


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _left_out_before(index: Path, names: Sequence[str]) -> dict[str, str]:
    """Shards that an index says are left out, and why; none if there is no index, or a damaged one."""
    try:
        found = json.loads(index.read_bytes())[_LEFT_OUT]
        return {name: str(found[name]) for name in names if name in found}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _describe_left_out(plan: Sequence[Part], names: Sequence[str], left_out: Mapping[str, str]) -> str:
    """What is left out, for people; UserError if nothing remains of a split."""
    why = [f"{part.clip.name} {left_out[name]}" for name, part in zip(names, plan, strict=True) if name in left_out]
    described = format_some(why)
    remaining = {part.split for name, part in zip(names, plan, strict=True) if name not in left_out}
    for split in {part.split for part in plan} - remaining:
        raise UserError(f"no clip is left to {split} on ({described}): give other videos with --clips")
    return f"{len(why)} of {len(plan)} clips left out: {described}"


def _compute(
    teacher: Teacher,
    plan: Sequence[Part],
    digests: Sequence[str],
    settings: TargetSettings,
    folder: Path,
    names: Sequence[str],
    missing: Sequence[int],
    at_once: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Write the missing shards; those whose clip breaks off, and why."""
    total, done, counting = sum(plan[number].crops for number in missing), 0, Lock()

    def count(crops: int) -> None:
        nonlocal done
        with counting:
            done += crops
            if progress is not None:
                progress(done, total)

    def write(teacher: Teacher, number: int) -> str:
        """Why the clip is left out, or nothing."""
        part, cuts = plan[number], 0
        rows: dict[int, dict[str, Tensor]] = {}
        try:
            for crop in cut_crops(part, digests[number], settings):
                rows[crop.number] = targets_of(teacher, crop, settings)
                cuts += crop.has_cut
                count(1)
        except NoPictureError as error:
            if part.clip.digest() != digests[number]:
                raise UserError(f"{part.clip.path} has changed meanwhile: restore it, or start anew") from error
            count(part.crops - len(rows))
            return str(error)
        tensors = {name: torch.cat([rows[crop][name] for crop in range(part.crops)]).contiguous() for name in rows[0]}
        write_shard(folder / names[number], tensors, **{_CUTS: cuts})
        return ""

    reasons = each_with_a_teacher(teacher, missing, write, at_once)
    return {names[number]: reason for number, reason in zip(missing, reasons, strict=True) if reason}


def _open(
    folder: Path,
    key: str,
    teacher: Teacher,
    settings: TargetSettings,
    plan: Sequence[Part],
    names: list[str],
    left_out: Mapping[str, str],
    *,
    in_memory: bool,
) -> Targets:
    splits: dict[Split, Samples] = {}
    for split in SPLITS:
        there = [(name, part) for name, part in zip(names, plan, strict=True) if name not in left_out]
        members = [(name, part) for name, part in there if part.split == split]
        splits[split] = ShardSamples(
            shards=tuple(folder / name for name, _ in members),
            samples=tuple((shard, at) for shard, (_, part) in enumerate(members) for at in range(part.crops)),
            clip_names=tuple(part.clip.name for _, part in members for _ in range(part.crops)),
            loaded={} if in_memory else None,
        )
    return Targets(key, teacher.spec, {name: teacher.taps[name] for name in settings.taps}, splits)
