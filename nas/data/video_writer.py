"""Frames into a video file or a folder of pictures, one after the other; complete, or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from nas.machine.files import check_output, disk_errors
from nas.machine.temporary import put_in_place, temporary_file, temporary_folder
from nas.terminal.errors import UserError

Write = Callable[[np.ndarray], None]
"""Function that takes the next frames, uint8 RGB `(t, h, w, 3)`."""

_DOING = "cannot write the frames"
_BT601, _BT709 = 5, 1
"""Colour matrices, by their numbers in FFmpeg."""
_LIMITED_RANGE = 1


@dataclass(frozen=True)
class _Kind:
    """How a file is written."""

    container: str
    """Format of the file, by its name in FFmpeg."""
    codec: str
    """Encoder, likewise."""
    pixels: str
    """Format of the pixels that it is given, likewise."""
    matrix: int = 0
    """Colour matrix; 0 where the pixels stay RGB."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of the encoder."""


_KINDS = {
    ".mp4": _Kind("mp4", "libx264", "yuv420p", _BT709, {"crf": "16"}),
    ".mov": _Kind("mov", "libx264", "yuv420p", _BT709, {"crf": "16"}),
    # Every bit of the frames.
    ".mkv": _Kind("matroska", "ffv1", "bgr0"),
    # Such files do not say which matrix it is, and most readers take this one.
    ".y4m": _Kind("yuv4mpegpipe", "rawvideo", "yuv444p", _BT601),
}
VIDEOS = tuple(_KINDS)
"""What files end in that can be written; a name without an ending is a folder of PNG pictures."""


def check_frames_output(path: Path) -> None:
    """Refuse a place for frames before any work is done for it.

    Raises:
        UserError: nothing can be written there, or it is of a kind that is not known here.
    """
    suffix = path.suffix.lower()
    if suffix and suffix not in _KINDS:
        raise UserError(
            f"cannot write {path}: expected a name that ends in {', '.join(VIDEOS)}, or without an ending for a folder "
            f"of PNG pictures"
        )
    check_output(path.parent, _DOING)
    if path.is_dir() if suffix else os.path.lexists(path):
        raise UserError(f"{_DOING}: {path} is there already{' and is a folder' if suffix else ''}: choose another name")
    codec = _KINDS[suffix].codec if suffix else "png"
    if codec not in av.codecs_available:
        raise UserError(
            f"cannot write {path}: this PyAV has no encoder {codec}: install another, or write .mkv or .y4m"
        )


@contextmanager
def frames_writer(path: Path, rate: Fraction) -> Iterator[Write]:
    """A function that writes frames; what it wrote is at `path` once the `with` has ended without an error.

    Args:
        path: .mp4 and .mov (H.264, nearly lossless, BT.709), .mkv (FFV1, lossless), .y4m (4:4:4, BT.601), or without
            an ending a folder of PNG pictures, which has to be new.
        rate: frames per second.

    Raises:
        UserError: the disk or the encoder does not take them.
    """
    with disk_errors(_DOING):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            with temporary_file(path.parent) as (new, file):
                with _encoder(path, new, rate) as write:
                    yield write
                os.fsync(file.fileno())
                new.replace(path)
        else:
            with temporary_folder(path.parent) as work:
                new = work / "frames"
                new.mkdir()
                yield _PngFolder(new).write
                put_in_place(new, path)


@contextmanager
def _encoder(path: Path, new: Path, rate: Fraction) -> Iterator[Write]:
    """Encode into the file `new`; errors name `path`."""
    kind = _KINDS[path.suffix.lower()]
    try:
        with av.open(str(new.absolute()), "w", format=kind.container) as container:
            stream = container.add_stream(kind.codec, rate=rate, options=kind.options)
            stream.pix_fmt = kind.pixels
            count = 0

            def write(frames: np.ndarray) -> None:
                nonlocal count
                for pixels in frames:
                    if count == 0:
                        _describe(stream, kind, *pixels.shape[:2])
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                    if kind.matrix:
                        frame = frame.reformat(format=kind.pixels, dst_colorspace=kind.matrix)
                    frame.pts = count
                    container.mux(stream.encode(frame))
                    count += 1

            yield write
            if count:
                container.mux(stream.encode(None))
    except av.FFmpegError as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise UserError(f"{_DOING}: {path}: {error.strerror or error}: write .mkv or .y4m") from error


def _describe(stream: Any, kind: _Kind, height: int, width: int) -> None:
    """Tell an encoder the size, and players the colours."""
    stream.height, stream.width = height, width
    if kind.matrix:
        context = stream.codec_context
        context.colorspace, context.color_range = kind.matrix, _LIMITED_RANGE
        context.color_primaries = context.color_trc = kind.matrix


class _PngFolder:
    """Numbered pictures in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def write(self, frames: np.ndarray) -> None:
        """The next ones."""
        for pixels in frames:
            encoder: Any = av.CodecContext.create("png", "w")
            encoder.height, encoder.width = pixels.shape[:2]
            encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
            (packet,) = encoder.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
            (self._folder / f"{self._count:06d}.png").write_bytes(bytes(packet))
            self._count += 1
