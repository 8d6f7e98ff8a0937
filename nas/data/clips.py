"""Video clips: runs of consecutive frames of a file, and reading them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from nas.data.pictures import Display, NoPictureError, to_rgb
from nas.data.video_file import first_display, pictures
from nas.terminal.errors import UserError

_NEAR = 250
"""Places that are decoded in passing rather than sought across: encoders set key pictures about as far apart."""


@dataclass(frozen=True)
class Clip:
    """A run of consecutive frames of a video file."""

    path: Path
    """The video file."""
    first_frame: int
    """Place in the file (`nas.data.video_file.Clock`) that the clip begins at: the number of a frame."""
    num_frames: int
    """Places of the clip: its number of frames, if the video has a constant rate."""
    content: str = ""
    """What stands for the content of the file (`nas.data.headers`); "" if nobody looked."""

    @property
    def name(self) -> str:
        """File name, with the frames if it is a part of the file."""
        end = self.first_frame + self.num_frames
        return self.path.name if self.first_frame == 0 else f"{self.path.name}[{self.first_frame}:{end}]"

    @property
    def identity(self) -> str:
        """What stands for the content of the clip without reading all of its file."""
        return f"{self.content} {self.first_frame}:{self.num_frames}"

    def digest(self) -> str:
        """SHA-256 of the file, the range of frames, and how its pictures are shown if that is not as most are.

        Raises:
            UserError: the file cannot be read (any more).
        """
        try:
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise UserError(f"{self.path} cannot be read any more ({error}): restore it or start anew") from error
        try:
            shown = first_display(self.path).particulars
        except NoPictureError as error:  # of a file that is all there: another one has another digest
            shown = f" {error}"
        digest.update(f"{self.first_frame}:{self.num_frames}{shown}".encode())
        return digest.hexdigest()


def read_frames(clip: Clip, first: int, count: int) -> np.ndarray:
    """`count` frames of a clip from its place `first` on: uint8 RGB `(t, h, w, 3)`, short side at most 720.

    Raises:
        UserError: the video ends or breaks before.
    """
    try:
        ((_, frames),) = read_runs(clip, [first], count)
    except NoPictureError as error:
        raise UserError(f"{clip.path} {error}: has it changed? restore it, or start anew without it") from error
    return frames


def read_chunks(clip: Clip, first: int, counts: Iterable[int]) -> Iterator[np.ndarray]:
    """As `read_frames`, chunk by chunk: the file is decoded once, and no more frames are held than a chunk has.

    Raises:
        UserError: the video ends or breaks before.
    """
    problem = "ends"
    with closing(pictures(clip.path, clip.first_frame + first)) as shown:
        for count in counts:
            frames: list[np.ndarray] = []
            try:
                while len(frames) < count and (picture := next(shown, None)) is not None:
                    frames.append(to_rgb(picture.frame, picture.display))
            except NoPictureError as error:
                problem = f"cannot be decoded to its end: it {error}"
            if len(frames) < count:
                raise UserError(f"{clip.path} {problem}: has it changed? restore it, or start anew without it")
            yield np.stack(frames)


def read_runs(
    clip: Clip, firsts: Sequence[int], count: int, shown: Display | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Runs of frames of a clip, each as `read_frames`, with its number in `firsts`; those that begin first come first.

    A run with fewer frames to the end of the clip, as a rate that is not constant can have it, begins earlier by what
    it lacks. So no run leaves its clip.

    Args:
        clip: what is read.
        firsts: places in the clip.
        count: frames of each run.
        shown: how the pictures have to be shown; by default like the first one that is met.

    Raises:
        NoPictureError: the video ends or breaks before, or its pictures are shown otherwise.
    """
    order = sorted(range(len(firsts)), key=lambda number: firsts[number])
    while order:
        near = 1
        while near < len(order) and firsts[order[near]] - firsts[order[near - 1]] <= count + _NEAR:
            near += 1
        group, order = order[:near], order[near:]
        short: dict[int, int] = {}
        for run in _read_near(clip, [_Run(number, firsts[number]) for number in group], count, shown):
            if len(run.frames) == count:
                yield run.number, np.stack(run.frames)
            else:
                short[run.number] = count - len(run.frames)
        for number, missing in short.items():
            yield number, _read_earlier(clip, firsts[number], missing, count, shown)


@dataclass
class _Run:
    """A run that is being read."""

    number: int
    """Which of those that are wanted it is."""
    first: int
    """Place in the clip that it begins at."""
    frames: list[np.ndarray] = field(default_factory=list)
    """What was read of it so far."""


def _read_near(clip: Clip, runs: list[_Run], count: int, shown: Display | None) -> Iterator[_Run]:
    """Runs, in the order in which they begin, read in one go; the last ones may be short."""
    end = clip.first_frame + clip.num_frames
    with closing(pictures(clip.path, clip.first_frame + runs[0].first, shown)) as opened:
        for place, frame, display in opened:
            if place >= end:
                break
            begun = [run for run in runs if place >= clip.first_frame + run.first]
            if begun:
                pixels = to_rgb(frame, display)
            for run in begun:
                run.frames.append(pixels)
            while runs and len(runs[0].frames) == count:
                yield runs.pop(0)
            if not runs:
                return
    yield from runs


def _read_earlier(clip: Clip, first: int, missing: int, count: int, shown: Display | None) -> np.ndarray:
    """A run that begins before `first`, as late as it can be."""
    while first > 0:
        first = max(0, first - missing)
        (run,) = _read_near(clip, [_Run(0, first)], count, shown)
        if len(run.frames) == count:
            return np.stack(run.frames)
        missing = max(2 * missing, count - len(run.frames))
    raise NoPictureError(f"ends before it has {count} frames from frame {clip.first_frame} on")


def to_video(frames: np.ndarray, short_side: int = 0, *, reduce: bool = False) -> Tensor:
    """uint8 `(t, h, w, 3)` -> `(1, 3, t, h, w)` in [-1, 1]; enlarged if its short side is less than `short_side`.

    With `reduce` it is also made smaller if its short side is more than that.
    """
    video = rearrange(torch.from_numpy(frames), "t h w c -> t c h w").float() / 127.5 - 1
    height, width = video.shape[2:]
    size = scaled(height, width, short_side, reduce=reduce)
    if size != (height, width):
        video = functional.interpolate(video, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
    return rearrange(video, "t c h w -> 1 c t h w")


def scaled(height: int, width: int, short_side: int, *, reduce: bool = False) -> tuple[int, int]:
    """Height and width that `to_video` gives."""
    if min(height, width) == short_side or (min(height, width) > short_side and not reduce):
        return height, width
    scale = short_side / min(height, width)
    return max(short_side, round(height * scale)), max(short_side, round(width * scale))
