"""Which crops of which clips a set of targets holds: all that were asked for, or as many as there may be."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.data.clips import Clip
from nas.data.latent_clips import LatentClip
from nas.data.settings import SPLITS, Split, TargetSettings
from nas.data.splits import ClipSet


@dataclass(frozen=True)
class Part:
    """The crops of one clip, or of the latents of one."""

    split: Split
    """What they are for."""
    clip: Clip | LatentClip
    """What they are cut from."""
    crops: int
    """Number of crops, at least 1; with fewer of a clip they are its first ones."""


def plan_of(clips: ClipSet, settings: TargetSettings) -> tuple[Part, ...]:
    """All that is asked for, split by split."""
    asked = [
        (split, settings.crops(split), clips.trained_on if split == "train" else clips.split(split)) for split in SPLITS
    ]
    return tuple(Part(split, clip, crops) for split, crops, material in asked if crops for clip in material)


def total_crops(plan: Sequence[Part]) -> int:
    """Number of crops, over all clips."""
    return sum(part.crops for part in plan)


def bounded(plan: Sequence[Part], most: int, seed: int) -> tuple[Part, ...]:
    """A plan of at most `most` crops: fewer of each clip, and if one of each is too much, of fewer clips.

    Crops of other clips teach more than further ones of the same. Which clips stay is up to `seed` and their content,
    so that a video that is added moves few others; all splits keep their share of clips, at least one.

    Args:
        plan: what is asked for; returned as it is if it has no more crops than that.
        most: number of crops, at least one for each split of the plan.
        seed: of the choice of clips.
    """
    if total_crops(plan) <= most:
        return tuple(plan)
    if len(plan) <= most:
        asked = sorted({part.crops for part in plan})
        limits = range(asked[-1], 0, -1)
        limit = next(limit for limit in limits if sum(min(part.crops, limit) for part in plan) <= most)
        return tuple(replace(part, crops=min(part.crops, limit)) for part in plan)
    kept: set[Part] = set()
    for split, share in _shares(Counter(part.split for part in plan), most).items():
        kept.update(sorted((part for part in plan if part.split == split), key=lambda part: _place(part, seed))[:share])
    return tuple(replace(part, crops=1) for part in plan if part in kept)


def describe_choice(asked: Sequence[Part], chosen: Sequence[Part]) -> str:
    """What is left of a plan, for people: "3 of 48 crops of each clip to train on, 3 of 8 to score on"."""
    fewer_clips = len(chosen) < len(asked)
    counts: list[str] = []
    for split in SPLITS:
        before, after = ([part.crops for part in plan if part.split == split] for plan in (asked, chosen))
        if not before:
            continue
        now, then = (len(after), len(before)) if fewer_clips else (after[0], before[0])
        noun = "" if counts else " clips" if fewer_clips else " crops of each clip"
        counts.append(f"{now} of {then}{noun} to {split} on")
    return f"{'1 crop each of ' if fewer_clips else ''}{', '.join(counts)}"


def _shares(counts: dict[Split, int], most: int) -> dict[Split, int]:
    """How many of `most` clips each split has: in proportion, rounded down, but one at least."""
    total = sum(counts.values())
    shares = {split: max(1, most * count // total) for split, count in counts.items()}
    while sum(shares.values()) > most:
        shares[max(shares, key=lambda split: shares[split])] -= 1
    return shares


def _place(part: Part, seed: int) -> str:
    return hashlib.sha256(f"{seed} {part.clip.identity}".encode()).hexdigest()
