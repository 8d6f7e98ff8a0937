"""Frames from the middle of a video are those that reading from its beginning gives, bit by bit."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from nas.data.clips import Clip, read_frames, read_runs
from nas.data.headers import read_header
from nas.data.pictures import NoPictureError, to_rgb
from nas.data.video_file import Picture, pictures
from tests.support.errors import refusal
from tests.support.videos import make_frames, read_numbers, write_video

COUNT, RUN = 90, 5
UNEVEN = np.cumsum([0, *(1 + (7 * number) % 23 for number in range(COUNT - 1))])

VIDEOS: dict[str, tuple[str, str, dict[str, str], bool]] = {
    "pictures that refer to later ones": ("a.mp4", "libx264", {"x264-params": "keyint=20:bframes=3"}, False),
    "key pictures that others reach across": (
        "a.mkv",
        "libx264",
        {"x264-params": "open-gop=1:keyint=20:bframes=3"},
        False,
    ),
    "refreshed bit by bit": ("a.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}, False),
    "no constant rate, mp4": ("a.mp4", "libx264", {"x264-params": "keyint=20:bframes=3"}, True),
    "no constant rate, mkv": ("a.mkv", "libx264", {"x264-params": "keyint=20:bframes=3"}, True),
    "every picture a key": ("a.avi", "mjpeg", {}, False),
    "without loss": ("a.mkv", "ffv1", {"g": "10"}, False),
    "mpeg4 in avi": ("a.avi", "mpeg4", {"g": "20", "bf": "2"}, False),
    "vp8 with hidden pictures": ("a.webm", "libvpx", {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16"}, False),
}
"""What is hard about it; file, codec and its options, and whether the time between frames varies."""


def write(path: Path, codec: str, options: dict[str, str], uneven: bool = False) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.height, stream.width = 32, 48
        stream.pix_fmt = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        unit = Fraction(1, 240) if uneven else Fraction(1, 24)
        stream.codec_context.time_base = unit
        stream.codec_context.thread_count = 1
        for number, pixels in enumerate(make_frames(COUNT)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base, frame.pts = unit, int(UNEVEN[number]) if uneven else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def taken(path: Path, first: int) -> list[tuple[int, bytes]]:
    """Places and pixels of the pictures from a place on."""
    found: list[tuple[int, bytes]] = []
    opened = pictures(path, first)
    for picture in opened:
        found.append(_pixels(picture))
        if first and len(found) == RUN:
            break
    opened.close()
    return found


def _pixels(picture: Picture) -> tuple[int, bytes]:
    return picture.place, to_rgb(picture.frame, picture.display).tobytes()


@pytest.mark.parametrize("what", VIDEOS)
def test_what_is_sought_is_what_is_read_in_order(what: str, tmp_path: Path) -> None:
    name, codec, options, uneven = VIDEOS[what]
    path = tmp_path / name
    write(path, codec, options, uneven)
    whole = taken(path, 0)
    assert len(whole) == COUNT and [place for place, _ in whole] == sorted(place for place, _ in whole)
    last = whole[-1][0]
    assert read_header(path).frames == last + 1
    if not uneven and path.suffix != ".avi":
        assert [place for place, _ in whole] == list(range(COUNT))
    for first in [*range(1, last, max(1, last // 13)), last]:
        assert taken(path, first) == [each for each in whole if each[0] >= first][:RUN], first


def test_it_is_sought_not_read(tmp_path: Path) -> None:
    """The first part of this video cannot be read."""
    path = tmp_path / "a.mp4"
    write(path, *VIDEOS["pictures that refer to later ones"][1:])
    whole, data = taken(path, 0), bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 100 : start + (len(data) - start) // 4] = bytes((len(data) - start) // 4 - 100)
    path.write_bytes(bytes(data))
    with pytest.raises(NoPictureError):
        taken(path, 0)
    assert taken(path, 70) == whole[70:75]


def test_runs_are_read_in_passing_or_sought_and_numbered_as_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    written = np.concatenate([write_video(path, 900, 16, 16)])
    clip = Clip(path, 10, 880)
    firsts = [870, 0, 3, 400, 3, 866]
    found = dict(read_runs(clip, firsts, 10))
    assert sorted(found) == list(range(6))
    for number, first in enumerate(firsts):
        assert np.array_equal(found[number], written[10 + first : 20 + first])


def test_a_run_that_would_leave_its_clip_begins_earlier(tmp_path: Path) -> None:
    """At the end of this video frames follow each other more slowly than they do on average."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "bgr0"
        for number, pixels in enumerate(make_frames(40)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if number < 20 else 20 + 4 * (number - 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    places = [place for place, _ in taken(path, 0)]
    half, clip = places[25], Clip(path, 0, places[-1] + 1)
    ((_, frames),) = read_runs(clip, [places[-4]], 8)
    numbers = [read_numbers(frame)[1] for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 8)) and 27 <= numbers[0] <= 32
    ((_, frames),) = read_runs(Clip(path, 0, half), [half - 3], 8)
    assert [read_numbers(frame)[1] for frame in frames][-1] <= 24, "what comes then is of another clip"
    assert "ends before it has 41 frames" in refusal(lambda: read_frames(clip, 0, 41))
