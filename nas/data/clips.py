"""Video clips: runs of consecutive frames of a file, and reading them."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from nas.data.pictures import NoPictureError, to_rgb
from nas.data.video_file import pictures, way_of_showing
from nas.terminal.errors import UserError

MAX_FRAMES = 121
"""Frames that are trained on of a video, from its beginning."""


@dataclass(frozen=True)
class Clip:
    """A run of consecutive frames of a video file."""

    path: Path
    """The video file."""
    first_frame: int
    """Frame of the file that the clip begins with."""
    num_frames: int
    """Frames of the clip."""

    @property
    def name(self) -> str:
        """File name, with the frames if it is a part of the file."""
        end = self.first_frame + self.num_frames
        return self.path.name if self.first_frame == 0 else f"{self.path.name}[{self.first_frame}:{end}]"

    def digest(self) -> str:
        """SHA-256 of the file, the range of frames, and how its pictures are shown if that is not as most are.

        Raises:
            UserError: the file cannot be read (any more).
        """
        try:
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            digest.update(f"{self.first_frame}:{self.num_frames}{way_of_showing(self.path)}".encode())
        except (OSError, NoPictureError) as error:
            raise UserError(f"{self.path} cannot be read any more ({error}): restore it or start anew") from error
        return digest.hexdigest()


def read_frames(clip: Clip, first: int, count: int) -> np.ndarray:
    """`count` frames of a clip from its frame `first` on: uint8 RGB `(t, h, w, 3)`, short side at most 720.

    Raises:
        UserError: the video ends or breaks before.
    """
    return next(read_chunks(clip, first, [count]))


def read_chunks(clip: Clip, first: int, counts: Iterable[int]) -> Iterator[np.ndarray]:
    """As `read_frames`, chunk by chunk: the file is decoded once, and no more frames are held than a chunk has.

    Raises:
        UserError: the video ends or breaks before.
    """
    decoded, problem = 0, "ends"
    end = clip.first_frame + first
    with closing(pictures(clip.path)) as shown:
        for count in counts:
            start, end = end, end + count
            frames: list[np.ndarray] = []
            try:
                for frame, display in shown:
                    decoded += 1
                    if decoded > start:
                        frames.append(to_rgb(frame, display))
                    if decoded == end:
                        break
            except NoPictureError as error:
                problem = f"cannot be decoded to its end: it {error}"
            if decoded < end:
                raise UserError(
                    f"{clip.path} {problem} after {decoded} frames, expected {end}: has it changed? restore it, or "
                    f"start anew without it"
                )
            yield np.stack(frames)


def to_video(frames: np.ndarray, short_side: int = 0, *, reduce: bool = False) -> Tensor:
    """uint8 `(t, h, w, 3)` -> `(1, 3, t, h, w)` in [-1, 1]; enlarged if its short side is less than `short_side`.

    With `reduce` it is also made smaller if its short side is more than that.
    """
    video = rearrange(torch.from_numpy(frames), "t h w c -> t c h w").float() / 127.5 - 1
    height, width = video.shape[2:]
    if min(height, width) < short_side or (reduce and min(height, width) > short_side):
        scale = short_side / min(height, width)
        size = [max(short_side, round(height * scale)), max(short_side, round(width * scale))]
        video = functional.interpolate(video, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
    return rearrange(video, "t c h w -> 1 c t h w")


def count_frames(path: Path, most: int | None = MAX_FRAMES) -> tuple[int, str]:
    """Number of whole frames, at most `most`, and why there are no more of them; "" if the video just ends."""
    count = 0
    try:
        for count, (frame, display) in enumerate(pictures(path), start=1):
            if count == 1:
                to_rgb(frame, display)  # what can be decoded need not have colours that are known
            if count == most:
                break
    except NoPictureError as error:
        return count, str(error)
    return count, "" if count else "has no picture"
