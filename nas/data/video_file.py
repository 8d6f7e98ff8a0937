"""The pictures of a video file, one after the other, up to where it breaks off."""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av

from nas.data.pictures import Display, NoPictureError, choose_stream, display_of

_SLACK = 0.1
"""Seconds by which the lengths that containers state were seen to be wrong, beside one frame."""

Picture = tuple[av.VideoFrame, Display]
"""A decoded frame and how it is shown."""


def open_video(path: Path) -> Any:
    """The container in a file, a context manager; `av.FFmpegError` if it holds none."""
    # Absolute, or "a:b.mp4" would be a file b.mp4 by the protocol a. Titles in another encoding are no reason to refuse
    # a video.
    return av.open(str(path.absolute()), metadata_errors="replace")


def pictures(path: Path) -> Generator[Picture, None, None]:
    """All whole pictures that are shown alike, in the order in which they are shown.

    Raises:
        NoPictureError: there is none, or the file goes on: it is damaged, cut off, or changes its size.
    """
    shown: Display | None = None
    try:
        with open_video(path) as container:
            stream = choose_stream(container)
            stream.thread_type = "AUTO"
            for frame in _whole_frames(container, stream):
                if frame.is_corrupt:
                    raise NoPictureError("is damaged")
                display = display_of(frame, stream)
                shown = shown or display
                if display != shown:
                    raise NoPictureError("goes on in another size")
                yield frame, shown
    except av.FFmpegError as error:
        raise NoPictureError(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        # What PyAV raises itself, of values that it has no word for.
        raise NoPictureError(f"cannot be read ({error})") from error


def way_of_showing(path: Path) -> str:
    """What sets the pictures of a file apart from those of its first video stream, merely set upright; mostly "".

    Raises:
        NoPictureError: there is no picture.
    """
    with closing(pictures(path)) as opened:
        for _, display in opened:
            return display.particulars
    raise NoPictureError("has no picture")


def _whole_frames(container: Any, stream: Any) -> Iterator[av.VideoFrame]:
    """Decoded frames before the first packet that is not whole; NoPictureError if there is one, or the end is early."""
    end = 0.0
    for packet in container.demux():
        if packet.is_corrupt and packet.stream is stream:
            # What is shown before the packet is due for decoding cannot need it.
            yield from (frame for frame in stream.decode(None) if _is_before(frame, packet))
            raise NoPictureError("is damaged")
        end = max(end, _end_of(packet))
        if packet.stream is stream:
            yield from packet.decode()
    if end and container.duration and end + _SLACK + _frame_seconds(stream) < _stated_end(container):
        raise NoPictureError("is cut off")


def _is_before(frame: av.VideoFrame, packet: Any) -> bool:
    return frame.pts is not None and packet.dts is not None and frame.pts < packet.dts


def _end_of(packet: Any) -> float:
    """Second at which what is in a packet is over; 0 if it does not say."""
    return 0.0 if packet.pts is None else float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _frame_seconds(stream: Any) -> float:
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def _stated_end(container: Any) -> float:
    return float(((container.start_time or 0) + container.duration) / av.time_base)
