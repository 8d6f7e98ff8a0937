"""A folder of videos, or the embedded clips, shared out: some to train on, some to score on, some to test on."""

import hashlib
import importlib.resources
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from nas.data.clips import MAX_FRAMES, Clip, count_frames
from nas.data.find_videos import EXTENSIONS, find_videos
from nas.data.settings import SPLITS, Split
from nas.machine.reading import reading
from nas.terminal.errors import UserError

_TEST, _SCORE = 0.2, 0.4
"""Of all places, numbers from 0 to 1, those below the first are for tests, and those between the two for scores."""
_SHORT = "is too short"


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
    """"embedded" or the folder."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that could not be used, and why."""
    cut: tuple[tuple[str, str], ...] = ()
    """Files that are used up to where they break off, and how many frames that is and why."""

    def split(self, name: Split) -> tuple[Clip, ...]:
        """The clips of one split."""
        return {"train": self.train, "score": self.score, "test": self.test}[name]

    def at_least(self, num_frames: int) -> "ClipSet":
        """Those that have so many frames.

        Raises:
            UserError: none is left to train on or to score on.
        """
        kept: dict[Split, tuple[Clip, ...]] = {}
        for name in SPLITS:
            kept[name] = tuple(clip for clip in self.split(name) if clip.num_frames >= num_frames)
            if name != "test" and not kept[name]:
                raise UserError(
                    f"no clip to {name} on has {num_frames} frames ({self.origin}): give longer videos, or a recipe "
                    f"with fewer latent frames"
                )
        return replace(self, train=kept["train"], score=kept["score"], test=kept["test"])

    def warnings(self) -> tuple[str, ...]:
        """One line for each file that is not used, or not to its end."""
        skipped = (f"skipped {name}: {reason}" for name, reason in self.skipped)
        return (*skipped, *(f"only the beginning of {name} is used: {reason}" for name, reason in self.cut))

    def describe(self) -> str:
        """One line for people."""
        counts = f"{len(self.train)} to train on, {len(self.score)} to score on, {len(self.test)} to test on"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.origin}: {counts}{skipped}"


def open_clips(folder: Path | None, num_frames: int, progress: Callable[[int, int], None] | None = None) -> ClipSet:
    """Find videos, look into each, split them.

    A folder with subfolders `train`, `score` and `test` is split that way, and what is outside them is left out. Else
    the content of each file decides, whatever its name: about a fifth is for tests, a fifth for scores. A split that
    would be empty is given the file that comes next in the order of contents. Of fewer than three videos the first part
    of each is for training, the rest for the others.

    Args:
        folder: searched with its subfolders; None for the embedded clips.
        num_frames: frames that a clip must have.
        progress: called with the number of files looked into and of all.

    Raises:
        UserError: no such folder, no video in it, none readable, or all too short.
    """
    if folder is None:
        return replace(_read_folder(_embedded(), num_frames, progress), origin="embedded")
    with _folder_of_videos(folder):
        return _read_folder(folder, num_frames, progress)


def open_test_clips(
    folder: Path | None,
    num_frames: int,
    most_frames: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClipSet:
    """Find videos to test on and look into each. None is for training.

    Args:
        folder: searched with its subfolders; if these are `train`, `score` and `test`, `test` alone. None for the
            embedded clips.
        num_frames: frames that a clip must have.
        most_frames: frames that are used of a video, from its beginning; None for all.
        progress: called with the number of files looked into and of all.

    Raises:
        UserError: as `open_clips`.
    """
    with _folder_of_videos(folder) if folder else nullcontext():
        whole = folder or _embedded()
        place = whole / "test" if all((whole / split).is_dir() for split in SPLITS) else whole
        clips, skipped, cut = _usable_clips(place, num_frames, most_frames, progress)
    return ClipSet((), (), tuple(clips.values()), str(folder or "embedded"), tuple(skipped), cut)


def _embedded() -> Path:
    return Path(str(importlib.resources.files("nas.assets"))) / "clips"


@contextmanager
def _folder_of_videos(folder: Path) -> Iterator[None]:
    with reading(folder, "expected --clips to be a folder of videos"):
        if not folder.exists():
            raise UserError(f"--clips {folder} does not exist: expected a folder of videos")
        if not folder.is_dir():
            raise UserError(f"--clips {folder} is a file: expected a folder of videos")
        yield


def _read_folder(folder: Path, num_frames: int, progress: Callable[[int, int], None] | None) -> ClipSet:
    clips, skipped, cut = _usable_clips(folder, num_frames, MAX_FRAMES, progress)
    return replace(_split(folder, clips, skipped, num_frames), cut=cut)


def _usable_clips(
    folder: Path, num_frames: int, most_frames: int | None, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, Clip], list[tuple[str, str]], tuple[tuple[str, str], ...]]:
    """Clips by the digest of their file, what is not used, and what is not to its end."""
    files, skipped = find_videos(folder)
    if not files and not skipped:
        raise UserError(f"no video in {folder}: expected files ending in {', '.join(EXTENSIONS)}")
    clips: dict[str, Clip] = {}
    cut: list[tuple[str, str]] = []
    for done, path in enumerate(files, start=1):
        length, reason = count_frames(path, most_frames)
        if progress is not None:
            progress(done, len(files))
        if length < num_frames:
            short = f"{_SHORT}: {length} frames, {num_frames} are needed"
            skipped.append((path.name, f"{short} (it {reason})" if reason and length else reason or short))
            continue
        clip = Clip(path, 0, length)
        # The same video twice could end up in two splits.
        original = clips.setdefault(_content(path), clip)
        if original is not clip:
            skipped.append((path.name, f"is a copy of {original.path.name}"))
        elif reason:
            cut.append((path.name, f"it {reason} after {length} frames"))
    if not clips:
        raise _nothing_usable(folder, skipped, num_frames)
    return clips, skipped, tuple(cut)


def _nothing_usable(folder: Path, skipped: list[tuple[str, str]], num_frames: int) -> UserError:
    short = [name for name, reason in skipped if reason.startswith(_SHORT)]
    names = short or [name for name, _ in skipped]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    problem = f"only videos shorter than {num_frames} frames" if short else "no readable video"
    return UserError(f"{problem} in {folder} ({', '.join(names[:5])}{more}): give longer or other videos with --clips")


def _content(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(folder: Path, by_content: dict[str, Clip], skipped: list[tuple[str, str]], num_frames: int) -> ClipSet:
    clips = list(by_content.values())
    present = [split for split in SPLITS if (folder / split).is_dir()]
    if len(present) == len(SPLITS):
        return _split_as_named(folder, clips, skipped)
    if len(present) > 1:
        missing = next(split for split in SPLITS if split not in present)
        raise UserError(
            f"{folder} has subfolders {' and '.join(present)} but no {missing}: add it, or rename them all to have "
            f"the videos split for you"
        )
    if len(clips) < len(SPLITS):
        return _split_in_time(folder, clips, skipped, num_frames)
    chosen = _split_by_content(by_content)
    train, score, test = (tuple(clip for clip in clips if chosen[clip] == split) for split in SPLITS)
    return ClipSet(train, score, test, str(folder), tuple(skipped))


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
    for clip in clips:
        if clip.num_frames < 3 * num_frames:
            raise UserError(
                f"{folder} has fewer than 3 usable videos, and {clip.path.name} with {clip.num_frames} frames is too "
                f"short to be cut into parts for training, scores and tests: give at least 3 videos or "
                f"{3 * num_frames} frames"
            )
        rest = clip.num_frames - 2 * num_frames
        parts["train"].append(replace(clip, num_frames=rest))
        parts["score"].append(Clip(clip.path, rest, num_frames))
        parts["test"].append(Clip(clip.path, rest + num_frames, num_frames))
    train, score, test = (tuple(parts[split]) for split in SPLITS)
    return ClipSet(train, score, test, str(folder), tuple(skipped))
