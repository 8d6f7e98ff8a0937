"""The pictures of a video file, one after the other from any place on, up to where it breaks off."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil, floor
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.video.frame import PictureType

from nas.data.pictures import Display, NoPictureError, choose_stream, display_of

SLACK = 0.1
"""Seconds by which the lengths that containers state were seen to be wrong, beside one frame."""
_STEPS_BACK = (0, 1, 5, 25)
"""Seconds further back from which a key picture is looked for, where the index of the file leads to none."""


class _NoKeyPictureError(Exception):
    """The file does not lead to a picture that stands for itself."""


class Picture(NamedTuple):
    """A decoded frame, where it is, and how it is shown."""

    place: int
    """Frames that precede it at the average rate of the video: its number, if the video has a constant rate."""
    frame: av.VideoFrame
    """What the decoder gave."""
    display: Display
    """How it is shown."""


@dataclass(frozen=True)
class Clock:
    """Which place in a video a time is: the number of the frame that is due then at the average rate."""

    start: int
    """Ticks at which the first frame is due."""
    step: Fraction
    """Ticks between two frames, on average."""

    def place(self, ticks: int) -> int:
        """The place that is nearest to a time."""
        return floor((ticks - self.start) / self.step + Fraction(1, 2))

    def earliest(self, place: int) -> int:
        """The first tick that belongs to a place."""
        return self.start + ceil((place - Fraction(1, 2)) * self.step)


def clock_of(stream: Any) -> Clock:
    """The clock of a stream.

    Raises:
        NoPictureError: the file does not say how fast its frames follow.
    """
    rate = stream.average_rate or stream.guessed_rate
    if not rate or not stream.time_base:
        raise NoPictureError("does not say how fast its frames follow")
    return Clock(stream.start_time or 0, 1 / (rate * stream.time_base))


def open_video(path: Path) -> Any:
    """The container in a file, a context manager; `av.FFmpegError` if it holds none."""
    # Absolute, or "a:b.mp4" would be a file b.mp4 by the protocol a. Titles in another encoding are no reason to refuse
    # a video.
    return av.open(str(path.absolute()), metadata_errors="replace")


def pictures(path: Path, first: int = 0, shown: Display | None = None) -> Generator[Picture, None, None]:
    """All whole pictures from a place on that are shown alike, in the order in which they are shown.

    They are the same, bit by bit, wherever the reading begins: it begins with a key picture that is shown before.

    Args:
        path: the file.
        first: place to begin with; 0 is the first picture, whenever it is due.
        shown: how they have to be shown; by default like the first of them.

    Raises:
        NoPictureError: there is none, or the file goes on: it is damaged, cut off, or changes its size.
    """
    try:
        with open_video(path) as container:
            if first:
                try:
                    yield from _pictures(container, first, shown, seeking=True)
                    return
                except _NoKeyPictureError:
                    pass  # found before anything is given: all is read, from the beginning
            else:
                yield from _pictures(container, 0, shown, seeking=False)
                return
        with open_video(path) as container:
            yield from _pictures(container, first, shown, seeking=False)
    except av.FFmpegError as error:
        raise NoPictureError(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        # What PyAV raises itself, of values that it has no word for.
        raise NoPictureError(f"cannot be read ({error})") from error


def _pictures(container: Any, first: int, shown: Display | None, *, seeking: bool) -> Iterator[Picture]:
    stream = choose_stream(container)
    stream.thread_type = "AUTO"
    begin, packets = _packets_before(container, stream, first) if seeking else (None, container.demux())
    for place, frame in _places(container, stream, packets, begin):
        if place < first:
            continue
        display = display_of(frame, stream)
        shown = shown or display
        if display != shown:
            raise NoPictureError("goes on in another size")
        yield Picture(place, frame, shown)


def first_display(path: Path) -> Display:
    """How the first picture of a file is shown.

    Raises:
        NoPictureError: there is no picture.
    """
    with closing(pictures(path)) as opened:
        for picture in opened:
            return picture.display
    raise NoPictureError("has no picture")


def seconds_at_end(packet: Any) -> float:
    """Second at which what is in a packet is over; 0 if it does not say."""
    return 0.0 if packet.pts is None else float((packet.pts + (packet.duration or 0)) * packet.time_base)


def ends_early(container: Any, stream: Any, end: float) -> bool:
    """Whether a file whose last packet is over at second `end` should have gone on."""
    frame = float(1 / stream.average_rate) if stream.average_rate else 0.0
    stated = float(((container.start_time or 0) + (container.duration or 0)) / av.time_base)
    return bool(end and container.duration and end + SLACK + frame < stated)


def _packets_before(container: Any, stream: Any, first: int) -> tuple[int, Iterable[Any]]:
    """The tick of a key picture that is shown at a place or before, and the packets from there on."""
    due = clock_of(stream).earliest(first)
    for seconds in _STEPS_BACK:
        try:
            container.seek(due - round(seconds / stream.time_base), stream=stream)
            packets = container.demux()
            head = next((packet for packet in packets if packet.stream is stream), None)
        except (av.FFmpegError, OSError) as error:
            raise _NoKeyPictureError from error
        # Indices go by the time of decoding: the key picture that one leads to may be shown later than it is decoded.
        if head is not None and head.is_keyframe and head.pts is not None and head.pts <= due:
            return head.pts, chain([head], packets)
    raise _NoKeyPictureError


def _places(
    container: Any, stream: Any, packets: Iterable[Any], begin: int | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames and their places; from the key picture at tick `begin` on, unless that is None.

    Raises:
        NoPictureError: one is damaged; also one that is not wanted, as the others are made from it.
    """
    clock, place = clock_of(stream), -1
    for frame in _whole_frames(container, stream, packets):
        if begin is not None:
            if frame.pts is not None and frame.pts < begin:
                continue  # made from what precedes the key picture
            if frame.pts != begin or not frame.key_frame or frame.pict_type != PictureType.I:
                raise _NoKeyPictureError  # it was none, but the first of some that refresh the picture bit by bit
            begin = None
        if frame.is_corrupt:
            raise NoPictureError("is damaged")
        place = place + 1 if frame.pts is None else max(0, clock.place(frame.pts))
        yield place, frame


def _whole_frames(container: Any, stream: Any, packets: Iterable[Any]) -> Iterator[av.VideoFrame]:
    """Decoded frames before the first packet that is not whole; NoPictureError if there is one, or the end is early."""
    end = 0.0
    for packet in packets:
        if packet.is_corrupt and packet.stream is stream:
            # What is shown before the packet is due for decoding cannot need it.
            yield from (frame for frame in stream.decode(None) if _is_before(frame, packet))
            raise NoPictureError("is damaged")
        end = max(end, seconds_at_end(packet))
        if packet.stream is stream:
            yield from packet.decode()
    if ends_early(container, stream, end):
        raise NoPictureError("is cut off")


def _is_before(frame: av.VideoFrame, packet: Any) -> bool:
    return frame.pts is not None and packet.dts is not None and frame.pts < packet.dts
