"""Video clips: runs of consecutive frames of a file, and reading them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from nas.terminal.errors import UserError

_MAX_FRAMES = 121
"""Frames that are used of a video, from its beginning."""
_MAX_SHORT_SIDE = 720
"""Larger videos are reduced to this: small crops of 4K hold little detail, and 121 frames of it take 3 GB."""


@dataclass(frozen=True)
class Clip:
    """A run of consecutive frames of a video file."""

    path: Path
    first_frame: int
    num_frames: int

    @property
    def name(self) -> str:
        """File name, with the frames if it is a part of the file."""
        end = self.first_frame + self.num_frames
        return self.path.name if self.first_frame == 0 else f"{self.path.name}[{self.first_frame}:{end}]"

    def digest(self) -> str:
        """SHA-256 of the file and the range of frames."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(f"{self.first_frame}:{self.num_frames}".encode())
        return digest.hexdigest()


def read_frames(clip: Clip, first: int, count: int) -> np.ndarray:
    """`count` frames of a clip from its frame `first` on: uint8 RGB `(t, h, w, 3)`, short side at most 720.

    Raises:
        UserError: the video ends or breaks before.
    """
    start = clip.first_frame + first
    frames = []
    try:
        for index, frame in enumerate(_decode(clip.path)):
            if index >= start:
                frames.append(_to_rgb(frame))
            if len(frames) == count:
                return np.stack(frames)
    except av.FFmpegError as error:
        raise UserError(f"{clip.path} cannot be decoded ({error}): remove or replace it") from error
    raise UserError(f"{clip.path} ends after {start + len(frames)} frames, expected {start + count}: has it changed?")


def to_video(frames: np.ndarray, short_side: int = 0) -> Tensor:
    """uint8 `(t, h, w, 3)` -> `(1, 3, t, h, w)` in [-1, 1]; enlarged if its short side is less than `short_side`."""
    video = rearrange(torch.from_numpy(frames), "t h w c -> t c h w").float() / 127.5 - 1
    height, width = video.shape[2:]
    if min(height, width) < short_side:
        scale = short_side / min(height, width)
        size = [max(short_side, round(height * scale)), max(short_side, round(width * scale))]
        video = functional.interpolate(video, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
    return rearrange(video, "t c h w -> 1 c t h w")


def count_frames(path: Path) -> tuple[int, str]:
    """Number of frames that can be decoded (at most `_MAX_FRAMES`), and why there are none."""
    count = 0
    try:
        for _ in _decode(path):
            count += 1
            if count == _MAX_FRAMES:
                break
    except av.FFmpegError as error:
        # A file that breaks off in the middle is good up to there.
        return count, f"cannot be read ({error.strerror or error})" if count == 0 else ""
    return count, "" if count else "has no video stream"


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    """Frames in the order of display, up to the first of another size."""
    # Titles in another encoding are no reason to refuse a video.
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.video:
            return
        container.streams.video[0].thread_type = "AUTO"
        size = None
        for frame in container.decode(video=0):
            size = size or (frame.width, frame.height)
            if size != (frame.width, frame.height):
                return
            yield frame


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 `(h, w, 3)`, upright, its short side at most `_MAX_SHORT_SIDE`."""
    scale = _MAX_SHORT_SIDE / min(frame.width, frame.height)
    if scale < 1:
        size = round(frame.width * scale), round(frame.height * scale)
        frame = frame.reformat(*size, format="rgb24", interpolation="AREA")
    # Phones store upright videos lying down, with the angle beside them.
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
