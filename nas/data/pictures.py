"""How the pictures of a video file are shown: which stream, how wide its pixels are, which way is up."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition

_MAX_SHORT_SIDE = 720
"""Larger videos are reduced to this: small crops of 4K hold little detail, and 121 frames of it take 3 GB."""
_WIDEST_PIXEL = 16
"""Pixels that are longer than this in one direction are an error of the file, and would take any amount of memory."""
_NOT_FILMS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_FOR_FEW = Disposition.dependent | Disposition.visual_impaired | Disposition.hearing_impaired


class NoPictureError(Exception):
    """A file gives no picture, or no further one; the message completes "the file ..."."""


@dataclass(frozen=True)
class Display:
    """What a container says about how a decoded picture is shown."""

    stream: int
    """Number of the stream among the video streams of the file."""
    width: int
    """Stored width in pixels."""
    height: int
    """Stored height in pixels."""
    pixel_aspect: Fraction
    """Width of a pixel divided by its height."""
    transposed: bool
    """Whether the first row becomes the first column; before the flips."""
    flipped_x: bool
    """Whether left and right change places."""
    flipped_y: bool
    """Whether top and bottom change places."""

    @property
    def particulars(self) -> str:
        """What is not so with most videos: another stream than the first, pixels that are not square, mirroring."""
        mirrored = (self.transposed + self.flipped_x + self.flipped_y) % 2 == 1
        stream = f" stream {self.stream}" if self.stream else ""
        aspect = f" pixels {self.pixel_aspect}" if self.pixel_aspect != 1 else ""
        return f"{stream}{aspect}{' mirrored' if mirrored else ''}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height with square pixels and a short side of at most 720, before it is set upright."""
        # One side grows and none shrinks, so no detail is lost; players do the same.
        wide = self.width * max(self.pixel_aspect, Fraction(1))
        high = self.height / min(self.pixel_aspect, Fraction(1))
        scale = min(Fraction(1), _MAX_SHORT_SIDE / min(wide, high))
        return round(wide * scale), round(high * scale)

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of what `to_rgb` makes of it."""
        width, height = self.size
        return (width, height) if self.transposed else (height, width)


def choose_stream(container: Any) -> Any:
    """The video stream that a player shows: no cover and no thumbnails, the default one, of these the largest.

    Raises:
        NoPictureError: there is none.
    """
    films = [stream for stream in container.streams.video if not stream.disposition & _NOT_FILMS]
    if not films:
        raise NoPictureError("has no video stream")
    decodable = [stream for stream in films if stream.codec_context is not None]
    if not decodable:
        raise NoPictureError("cannot be read (nothing here decodes its codec)")

    def rank(stream: Any) -> tuple[bool, bool, int]:
        for_all = not stream.disposition & _FOR_FEW
        return for_all, bool(stream.disposition & Disposition.default), stream.width * stream.height

    return max(decodable, key=rank)  # the first of equals


def check_pixels(stream: Any) -> Fraction:
    """Width of a pixel of a stream divided by its height.

    Raises:
        NoPictureError: it is out of all proportion.
    """
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if not Fraction(1, _WIDEST_PIXEL) <= aspect <= _WIDEST_PIXEL:
        raise NoPictureError(f"cannot be shown (pixels of {aspect.numerator}:{aspect.denominator})")
    return aspect


def display_of(frame: av.VideoFrame, stream: Any) -> Display:
    """How a decoded frame of a stream is shown.

    Raises:
        NoPictureError: its pixels have no sensible form.
    """
    aspect = check_pixels(stream)
    number = stream.container.streams.video.index(stream)
    # The rotation that PyAV offers lacks the mirroring. x and y of the screen are (a, c) and (b, d) times the stored.
    matrix = frame.side_data.get("DISPLAYMATRIX")
    a, b, _, c, d = (1, 0, 0, 0, 1) if matrix is None else np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    to_x, to_y = (c, b) if transposed else (a, d)
    return Display(number, frame.width, frame.height, aspect, transposed, flipped_x=to_x < 0, flipped_y=to_y < 0)


def to_rgb(frame: av.VideoFrame, display: Display) -> np.ndarray:
    """uint8 `(h, w, 3)`: upright, its pixels square, its short side at most 720.

    Raises:
        NoPictureError: its colours cannot be converted.
    """
    width, height = display.size
    how = {}
    if (width, height) != (frame.width, frame.height):
        reduced = width <= frame.width and height <= frame.height
        how = {"width": width, "height": height, "interpolation": "AREA" if reduced else "BICUBIC"}
    try:
        # Threads that are begun for each frame take longer than they save, and wait for whatever runs beside them.
        pixels: np.ndarray = frame.reformat(format="rgb24", threads=1, **how).to_ndarray()
    except (av.FFmpegError, ValueError) as error:
        raise NoPictureError(f"cannot be shown ({error})") from error
    if display.transposed:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if display.flipped_y else 1, :: -1 if display.flipped_x else 1]
