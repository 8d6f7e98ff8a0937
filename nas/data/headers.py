"""What is known of a video file before a picture is decoded: its length, and what stands for its content."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from nas.data.pictures import NoPictureError, check_pixels, choose_stream
from nas.data.video_file import clock_of, ends_early, open_video, seconds_at_end

_PIECES = 4
"""Pieces of a large file that stand for all of it: its beginning, its end, and what lies evenly between."""
_PIECE_BYTES = 256 * 1024
"""Bytes of a piece. Files of no more than all pieces are read whole."""
_FAR = 1 << 40
"""Ticks after the end of any video."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself, and what its last packets say."""

    frames: int
    """Frames from the first to the last one at the average rate; 0 if there is no picture."""
    rate: float
    """Frames per second, on average."""
    reason: str
    """Why there are no more frames, completes "it ..."; "" if the video just ends."""
    content: str
    """Stands for the content of the file: SHA-256 of its size and of pieces of it, of small files of the whole."""


def read_header(path: Path) -> Header:
    """Look into a file without decoding it.

    Damage between its header and its last packets is not seen: whoever decodes it finds that.

    Raises:
        OSError: it cannot be read.
    """
    content = _content(path)
    try:
        frames, rate, reason = _length(path)
    except av.FFmpegError as error:
        return Header(0, 0.0, f"cannot be read ({error.strerror or error})", content)
    except ValueError as error:  # what PyAV raises itself, of values that it has no word for
        return Header(0, 0.0, f"cannot be read ({error})", content)
    except NoPictureError as error:
        return Header(0, 0.0, str(error), content)
    return Header(frames, rate, reason, content)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _PIECES * _PIECE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for piece in range(_PIECES):
            file.seek((size - _PIECE_BYTES) * piece // (_PIECES - 1))
            digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()


def _length(path: Path) -> tuple[int, float, str]:
    """Number of frames, frames per second, and why there are no more of them."""
    for seeking in (True, False):
        with open_video(path) as container:
            stream = choose_stream(container)
            check_pixels(stream)
            clock = clock_of(stream)
            last, reason = _end(container, stream, seeking=seeking)
            if last is not None or not seeking:
                frames = 0 if last is None else clock.place(last) + 1
                return (
                    frames,
                    float(1 / (clock.step * stream.time_base)),
                    reason or ("" if frames else "has no picture"),
                )
    raise AssertionError("the second way gives a length")


def _end(container: Any, stream: Any, *, seeking: bool) -> tuple[int | None, str]:
    """The tick of the last frame and why there is no later one; None if its packets are not found."""
    last, decoded, end, reason = None, None, 0.0, ""
    try:
        if seeking:
            container.seek(_FAR, stream=stream)
        for packet in container.demux():
            if packet.stream is stream and packet.is_corrupt:
                reason = "is damaged"
                break
            end = max(end, seconds_at_end(packet))
            if packet.stream is stream and packet.size:
                ticks = packet.dts if packet.pts is None else packet.pts
                last = ticks if last is None or ticks is None else max(last, ticks)
                decoded = packet.dts
    except (av.FFmpegError, OSError) as error:
        if seeking:
            return None, ""  # not every file can be sought in, least of all one whose end is missing
        reason = f"cannot be read ({error.strerror or error})"
    if not reason and last is not None and ends_early(container, stream, end):
        reason = "is cut off"
    if reason and last is not None and decoded is not None:
        last = min(last, decoded)  # what is shown later may need what is missing
    return last, reason
