"""Videos of a folder or a list, or the embedded clips, shared out: to train on, to score on, to test on."""

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from nas.data.clips import Clip
from nas.data.find_videos import EXTENSIONS, find_videos
from nas.data.headers import Header
from nas.data.known_videos import KnownVideos
from nas.data.latent_clips import LatentClip
from nas.data.settings import SPLITS, Split
from nas.data.video_lists import Listed, read_list
from nas.machine.reading import reading
from nas.terminal.console import format_some
from nas.terminal.errors import UserError

_TEST, _SCORE = 0.2, 0.4
"""Of all places, numbers from 0 to 1, those below the first are for tests, and those between the two for scores."""
_SHORT = "is too short"
_WARNINGS = 20
"""Files that are named if many cannot be used; the others are counted."""


@dataclass(frozen=True)
class ClipSet:
    """Clips by what they are for; no frame is in two splits."""

    train: tuple[Clip, ...]
    """Clips to train on."""
    score: tuple[Clip, ...]
    """Clips that candidates are scored on."""
    test: tuple[Clip, ...]
    """Clips that finished models are judged on."""
    origin: str
    """"embedded", the folder, or the list."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that could not be used, and why."""
    cut: tuple[tuple[str, str], ...] = ()
    """Files that are used up to where they break off, and how many frames that is and why."""
    latents: tuple[LatentClip, ...] = ()
    """Latents of the user's, which are trained on beside the clips."""

    def split(self, name: Split) -> tuple[Clip, ...]:
        """The clips of one split."""
        return {"train": self.train, "score": self.score, "test": self.test}[name]

    @property
    def trained_on(self) -> tuple[Clip | LatentClip, ...]:
        """Everything to train on."""
        return (*self.train, *self.latents)

    def at_least(self, num_frames: int, crop: int) -> "ClipSet":
        """Those that have so many frames, which may be none; of latents those that crops of so many pixels fit into."""
        train, score, test = (
            tuple(clip for clip in self.split(name) if clip.num_frames >= num_frames) for name in SPLITS
        )
        latents = tuple(each for each in self.latents if each.holds(num_frames, crop))
        return replace(self, train=train, score=score, test=test, latents=latents)

    def warnings(self) -> tuple[str, ...]:
        """One line for each file that is not used, or not to its end; of many for the first ones."""
        skipped = (f"skipped {name}: {reason}" for name, reason in self.skipped)
        lines = (*skipped, *(f"only the beginning of {name} is used: {reason}" for name, reason in self.cut))
        more = len(lines) - _WARNINGS
        return lines if more <= 1 else (*lines[:_WARNINGS], f"{more} more files are not used, or not to their end")

    def describe(self) -> str:
        """One line for people."""
        counts = f"{len(self.train)} to train on, {len(self.score)} to score on, {len(self.test)} to test on"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.origin}: {counts}{skipped}"


def open_clips(
    source: Path | None,
    num_frames: int,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
) -> ClipSet:
    """Find videos, look into the header of each, split them.

    A folder with subfolders `train`, `score` and `test` is split that way, and what is outside them is left out. Else
    the content of each file decides, whatever its name: about a fifth is for tests, a fifth for scores. A split that
    would be empty is given the file that comes next in the order of contents. Of fewer than three videos the first part
    of each is for training, the rest for the others.

    Args:
        source: a folder, searched with its subfolders, or a list (`nas.data.video_lists`); None for the embedded clips.
        num_frames: frames that a clip must have.
        progress: called with the number of files looked into and of all.
        cache: folder for what was found out about files; default `default_cache_dir()`.

    Raises:
        UserError: no such folder or list, no video in it, none readable, or all too short.
    """
    whole, listed, skipped = _find(source)
    clips, cut = _usable(whole, listed, skipped, KnownVideos(cache), num_frames, progress)
    return replace(_split(whole, clips, skipped, num_frames), cut=cut, origin=str(source or "embedded"))


def open_test_clips(
    source: Path | None,
    num_frames: int,
    most_frames: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
) -> ClipSet:
    """Find videos to test on and look into the header of each. None is for training.

    Args:
        source: as for `open_clips`; of a folder with subfolders `train`, `score` and `test`, `test` alone.
        num_frames: frames that a clip must have.
        most_frames: frames that are used of a video, from its beginning; None for all.
        progress: called with the number of files looked into and of all.
        cache: as for `open_clips`.

    Raises:
        UserError: as `open_clips`.
    """
    whole, listed, skipped = _find(source, only_tests=True)
    clips, cut = _usable(whole, listed, skipped, KnownVideos(cache), num_frames, progress)
    used = (
        clip if most_frames is None else replace(clip, num_frames=min(clip.num_frames, most_frames)) for clip in clips
    )
    return ClipSet((), (), tuple(used), str(source or "embedded"), tuple(skipped), cut)


def _find(source: Path | None, *, only_tests: bool = False) -> tuple[Path, list[Listed], list[tuple[str, str]]]:
    """Where videos are looked for, those that are there, and what is none."""
    if source is None:
        source = Path(str(importlib.resources.files("nas.assets"))) / "clips"
    with reading(source, "expected --clips to be a folder of videos or a list of them"):
        if not source.exists():
            raise UserError(f"--clips {source} does not exist: expected a folder of videos or a list of them")
        if not source.is_dir():
            return source, read_list(source), []
        if only_tests and all((source / split).is_dir() for split in SPLITS):
            source = source / "test"
        files, skipped = find_videos(source)
    if not files and not skipped:
        raise UserError(f"no video in {source}: expected files ending in {', '.join(EXTENSIONS)}")
    return source, [Listed(path) for path in files], skipped


def _usable(
    source: Path,
    listed: list[Listed],
    skipped: list[tuple[str, str]],
    known: KnownVideos,
    num_frames: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Clip], tuple[tuple[str, str], ...]]:
    """Clips, and what is not used to its end; what is not used at all is added to `skipped`."""
    paths = list(dict.fromkeys(each.path for each in listed))
    headers = dict(zip(paths, known.headers(paths, progress), strict=True))
    clips: dict[tuple[str, int, int], Clip] = {}
    cut: dict[str, str] = {}
    for each in listed:
        header = headers[each.path]
        clip = _clip(each, header)
        name, reason = each.path.name, header.reason
        if clip.num_frames < num_frames:
            short = f"{_SHORT}: {clip.num_frames} frames, {num_frames} are needed"
            skipped.append((name, f"{short} (it {reason})" if reason and header.frames else reason or short))
            continue
        # The same video twice could end up in two splits.
        original = clips.setdefault((clip.content, clip.first_frame, clip.num_frames), clip)
        if original is not clip:
            skipped.append((name, f"is a copy of {original.path.name}"))
        elif reason:
            cut[name] = f"it {reason} after {header.frames} frames"
    if not clips:
        raise _nothing_usable(source, skipped, num_frames)
    return list(clips.values()), tuple(cut.items())


def _clip(listed: Listed, header: Header) -> Clip:
    """The part of a file that is asked for, as far as there is one."""
    first = min(ceil(round(listed.start * header.rate, 3)), header.frames)
    rest = header.frames - first
    length = rest if listed.length is None else min(rest, int(round(listed.length * header.rate, 3)))
    return Clip(listed.path, first, length, header.content)


def _nothing_usable(source: Path, skipped: list[tuple[str, str]], num_frames: int) -> UserError:
    short = [name for name, reason in skipped if reason.startswith(_SHORT)]
    names = short or [name for name, _ in skipped]
    problem = f"only videos shorter than {num_frames} frames" if short else "no readable video"
    return UserError(f"{problem} in {source} ({format_some(names, 5)}): give longer or other videos with --clips")


def _split(source: Path, clips: list[Clip], skipped: list[tuple[str, str]], num_frames: int) -> ClipSet:
    present = [split for split in SPLITS if (source / split).is_dir()]
    if len(present) == len(SPLITS):
        return _split_as_named(source, clips, skipped)
    if len(present) > 1:
        missing = next(split for split in SPLITS if split not in present)
        raise UserError(
            f"{source} has subfolders {' and '.join(present)} but no {missing}: add it, or rename them all to have "
            f"the videos split for you"
        )
    by_content = {clip.content: clip for clip in reversed(clips)}
    if len(by_content) < len(SPLITS):
        return _split_in_time(source, clips, skipped, num_frames)
    # Parts of a file may overlap: they stay together.
    chosen = _split_by_content(by_content)
    train, score, test = (
        tuple(clip for clip in clips if chosen[by_content[clip.content]] == split) for split in SPLITS
    )
    return ClipSet(train, score, test, str(source), tuple(skipped))


def _split_by_content(by_content: dict[str, Clip]) -> dict[Clip, Split]:
    """The split of each of three or more clips.

    Each has its place between 0 and 1, which depends on nothing but its content. Tests take the lowest places, then
    come scores, then training. Where too few are there for that, the borders move: what another file moves out of tests
    is next in line for scores, not for training.
    """
    places = sorted((int(content[:12], 16) / 16**12, content) for content in by_content)
    last = len(places) - 1
    tests = min(max(1, sum(place < _TEST for place, _ in places)), last - 1)
    before_training = min(max(tests + 1, sum(place < _SCORE for place, _ in places)), last)

    def split_of(rank: int) -> Split:
        return "test" if rank < tests else "score" if rank < before_training else "train"

    return {by_content[content]: split_of(rank) for rank, (_, content) in enumerate(places)}


def _split_as_named(folder: Path, clips: list[Clip], skipped: list[tuple[str, str]]) -> ClipSet:
    named = {split: tuple(clip for clip in clips if clip.path.is_relative_to(folder / split)) for split in SPLITS}
    empty = [split for split in SPLITS if not named[split]]
    if empty:
        raise UserError(f"no usable video in {folder / empty[0]}: each of {', '.join(SPLITS)} needs one")
    outside = [clip for clip in clips if not any(clip in members for members in named.values())]
    reason = f"lies outside the subfolders {', '.join(SPLITS)}"
    left_out = (*skipped, *((clip.path.name, reason) for clip in outside))
    return ClipSet(named["train"], named["score"], named["test"], str(folder), left_out)


def _split_in_time(folder: Path, clips: list[Clip], skipped: list[tuple[str, str]], num_frames: int) -> ClipSet:
    """The end of each video is for tests, what comes before it for scores, and all the rest for training."""
    parts: dict[Split, list[Clip]] = {split: [] for split in SPLITS}
    if len({clip.content for clip in clips}) < len(clips):
        raise UserError(
            f"{folder} lists parts of fewer than 3 videos, which may overlap: give parts of at least 3 videos"
        )
    for clip in clips:
        if clip.num_frames < 3 * num_frames:
            raise UserError(
                f"{folder} has fewer than 3 usable videos, and {clip.path.name} with {clip.num_frames} frames is too "
                f"short to be cut into parts for training, scores and tests: give at least 3 videos or "
                f"{3 * num_frames} frames"
            )
        rest = clip.num_frames - 2 * num_frames
        parts["train"].append(replace(clip, num_frames=rest))
        parts["score"].append(replace(clip, first_frame=clip.first_frame + rest, num_frames=num_frames))
        end = clip.first_frame + clip.num_frames
        parts["test"].append(replace(clip, first_frame=end - num_frames, num_frames=num_frames))
    train, score, test = (tuple(parts[split]) for split in SPLITS)
    return ClipSet(train, score, test, str(folder), tuple(skipped))
