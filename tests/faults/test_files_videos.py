"""Other people's videos: shown as a player shows them, used up to where they break, found whatever they are called."""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from nas.data import video_file
from nas.data.clips import Clip, read_frames, read_runs
from nas.data.headers import read_header
from nas.data.pictures import NoPictureError, choose_stream
from nas.data.splits import open_clips
from tests.support.errors import refusal
from tests.support.videos import make_frames, read_numbers, write_video

ONE = 1 << 16

MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "upright": ((1, 0, 0, 1), lambda shown: shown),
    "mirrored": ((-1, 0, 0, 1), lambda shown: shown[:, :, ::-1]),
    "upside down and mirrored": ((1, 0, 0, -1), lambda shown: shown[:, ::-1]),
    "half turn": ((-1, 0, 0, -1), lambda shown: shown[:, ::-1, ::-1]),
    "quarter turn": ((0, 1, -1, 0), lambda shown: np.rot90(shown, 1, (1, 2))),
    "quarter turn back": ((0, -1, 1, 0), lambda shown: np.rot90(shown, -1, (1, 2))),
    "transposed": ((0, 1, 1, 0), lambda shown: shown.swapaxes(1, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda shown: np.rot90(shown, 2, (1, 2)).swapaxes(1, 2)),
    "scaled": ((3, 0, 0, 3), lambda shown: shown),
    "of zeros": ((0, 0, 0, 0), lambda shown: shown),
}
"""Display matrix (a, b, c, d), and what has to be stored for the frames to be shown as they were made."""


def add_stream(container: Any, frames: np.ndarray, codec: str = "libx264", matrix: Any = None) -> Any:
    """A stream for such frames; they are encoded by `fill`."""
    stream = container.add_stream(codec, rate=24)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if codec == "libx264":
        stream.options = {"crf": "4", "preset": "ultrafast"}
    if matrix is not None:
        a, b, c, d = (value * ONE for value in matrix)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
    return stream


def fill(container: Any, *streams: tuple[Any, np.ndarray]) -> None:
    for stream, frames in streams:
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_shown(
    path: Path, frames: np.ndarray, matrix: Any = None, aspect: Fraction = Fraction(1), **options: Any
) -> None:
    with av.open(str(path), "w", **options) as container:
        stream = add_stream(container, frames, matrix=matrix)
        stream.codec_context.sample_aspect_ratio = aspect
        fill(container, (stream, frames))


def length_of(path: Path) -> tuple[int, str]:
    """Frames of a video, and why there are no more of them."""
    header = read_header(path)
    return header.frames, header.reason


def numbers(path: Path) -> list[tuple[int, int]]:
    """Video and frame that every usable frame of a file shows."""
    length, _ = length_of(path)
    return [read_numbers(frame) for frame in read_frames(Clip(path, 0, length), 0, length)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("row", MATRICES)
def test_a_display_matrix_is_honoured(row: str, suffix: str, tmp_path: Path) -> None:
    """The numbers stand in the lower half, and their bits from right to left: nothing else reads the same."""
    matrix, stored = MATRICES[row]
    frames = make_frames(2, 32, 48, video=165 - 64)
    write_shown(tmp_path / f"a{suffix}", stored(frames), matrix)
    found = read_frames(Clip(tmp_path / f"a{suffix}", 0, 2), 0, 2)
    assert found.shape == frames.shape
    assert [read_numbers(frame) for frame in found] == [(165 - 64, 0), (165 - 64, 1)]
    assert np.abs(found.astype(int) - frames).mean() < 25


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("aspect", "matrix", "size"),
    [
        (Fraction(2), None, (32, 96)),
        (Fraction(8, 9), None, (36, 48)),
        (Fraction(64, 45), (0, 1, -1, 0), (68, 32)),
    ],
)
def test_pixels_that_are_not_square_are_stretched(
    aspect: Fraction, matrix: Any, size: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    """Before the picture is turned, and no side shrinks."""
    frames = make_frames(2, 32, 48, video=19)
    path = tmp_path / f"a{suffix}"
    write_shown(path, frames, matrix, aspect)
    found = read_frames(Clip(path, 0, 2), 0, 2)
    assert found.shape == (2, *size, 3)
    upright = found if matrix is None else np.rot90(found, 1, (1, 2))
    assert [read_numbers(frame) for frame in upright] == [(19, 0), (19, 1)]


def test_a_large_video_with_narrow_pixels_is_reduced_once(tmp_path: Path) -> None:
    write_shown(tmp_path / "a.mp4", make_frames(1, 1080, 1440, video=3), aspect=Fraction(4, 3))
    found = read_frames(Clip(tmp_path / "a.mp4", 0, 1), 0, 1)
    assert found.shape == (1, 720, 1280, 3) and read_numbers(found[0]) == (3, 0)


def test_pixels_of_no_sensible_form_are_a_reason_to_leave_a_video_out(tmp_path: Path) -> None:
    write_shown(tmp_path / "a.mkv", make_frames(2), aspect=Fraction(20))
    assert length_of(tmp_path / "a.mkv") == (0, "cannot be shown (pixels of 20:1)")


STREAMS: dict[str, tuple[str, list[tuple[int, str, Any]], int]] = {
    "the larger one": (".mkv", [(32, "libx264", 0), (64, "libx264", 0)], 1),
    "the first of equals": (".mkv", [(32, "libx264", 0), (32, "libx264", 0)], 0),
    "the default one": (".mkv", [(64, "libx264", 0), (32, "libx264", Disposition.default)], 1),
    "not the one for few": (".mkv", [(64, "libx264", Disposition.visual_impaired), (32, "libx264", 0)], 1),
    "not the cover": (".mp4", [(128, "mjpeg", Disposition.attached_pic), (32, "libx264", 0)], 1),
}
"""Kind of file, streams (height, codec, disposition), and which of them players show."""


@pytest.mark.parametrize("row", STREAMS)
def test_the_stream_that_a_player_shows_is_read(row: str, tmp_path: Path) -> None:
    suffix, kinds, expected = STREAMS[row]
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        streams = []
        for number, (height, codec, disposition) in enumerate(kinds):
            frames = make_frames(1 if codec == "mjpeg" else 4, height, 2 * height, video=number)
            stream = add_stream(container, frames, codec)
            stream.disposition = disposition
            streams.append((stream, frames))
        fill(container, *streams)
    assert numbers(path) == [(expected, index) for index in range(4)]


@pytest.mark.parametrize("kind", [Disposition.attached_pic, Disposition.timed_thumbnails, Disposition.still_image])
def test_covers_and_thumbnails_are_never_the_film(kind: Disposition) -> None:
    """Also where they come first, are larger, and the default."""
    cover = SimpleNamespace(disposition=kind | Disposition.default, width=900, height=900, codec_context=object())
    film = SimpleNamespace(disposition=Disposition(0), width=32, height=32, codec_context=object())
    undecodable = SimpleNamespace(disposition=Disposition.default, width=99, height=99, codec_context=None)
    container = SimpleNamespace(streams=SimpleNamespace(video=[cover, undecodable, film]))
    assert choose_stream(container) is film
    for streams, reason in (([cover], "has no video stream"), ([cover, undecodable], "nothing here decodes")):
        with pytest.raises(NoPictureError, match=reason):
            choose_stream(SimpleNamespace(streams=SimpleNamespace(video=streams)))


def test_the_digest_changes_only_with_what_is_shown_otherwise(tmp_path: Path) -> None:
    """Targets of videos as most are were computed from the same pixels before, and are found again."""
    ways: dict[str, tuple[Any, Fraction]] = {
        "plain": (None, Fraction(1)),
        "turned": ((0, 1, -1, 0), Fraction(1)),
        "mirrored": ((-1, 0, 0, 1), Fraction(1)),
        "wide": (None, Fraction(2)),
    }
    for name, (matrix, aspect) in ways.items():
        path = tmp_path / f"{name}.mp4"
        write_shown(path, make_frames(4), matrix, aspect)
        plain = hashlib.sha256(path.read_bytes() + b"0:4").hexdigest()
        assert (Clip(path, 0, 4).digest() == plain) is (name in ("plain", "turned")), name


# What breaks off


def overwrite(path: Path, part: float) -> None:
    """Noise in the middle of the file, from `part` on."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * part)
    data[start : start + 400] = bytes(range(200)) * 2
    path.write_bytes(bytes(data))


def truncate(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def write_long(path: Path) -> None:
    """60 frames; the index of mp4 and mov comes first, so that they can be read without their end."""
    if path.suffix in (".avi", ".webm"):
        write_video(path, 60, 64, 96, video=5)
    else:
        write_shown(path, make_frames(60, 64, 96, video=5), options={"movflags": "faststart"})


@pytest.mark.parametrize("part", [0.5, 0.8])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".webm"])
def test_a_video_is_used_up_to_where_it_is_cut_off_and_that_is_said(suffix: str, part: float, tmp_path: Path) -> None:
    """Every frame that is used is a whole one, at its place; the same number every time."""
    path = tmp_path / f"a{suffix}"
    write_long(path)
    truncate(path, part)
    length, reason = length_of(path)
    assert numbers(path) == [(5, index) for index in range(length)]
    assert 20 <= length < 60 and reason
    assert length_of(path) == (length, reason)
    clips = open_clips(tmp_path, 5, cache=tmp_path)
    assert clips.warnings() == (f"only the beginning of a{suffix} is used: it {reason} after {length} frames",)


@pytest.mark.parametrize("part", [0.5, 0.8])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".webm"])
def test_no_frame_comes_from_a_damaged_part(suffix: str, part: float, tmp_path: Path) -> None:
    """Damage within a file is found where it is decoded: what is given are whole frames at their place, or an error."""
    path = tmp_path / f"a{suffix}"
    write_long(path)
    overwrite(path, part)
    broken = 0
    for first in range(0, 56, 5):
        try:
            runs = list(read_runs(Clip(path, 0, 60), [first], 4))
        except NoPictureError:
            broken += 1
            continue
        assert [read_numbers(frame) for frame in runs[0][1]] == [(5, index) for index in range(first, first + 4)]
    assert broken


def test_frames_that_are_flagged_as_corrupt_are_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mkv", 30)
    whole = video_file._whole_frames

    def flagged(container: Any, stream: Any, packets: Any) -> Any:
        for index, frame in enumerate(whole(container, stream, packets)):
            names = ("pts", "side_data", "width", "height", "to_ndarray", "reformat")
            values = {name: getattr(frame, name) for name in names}
            yield SimpleNamespace(is_corrupt=index == 17, **values)

    monkeypatch.setattr(video_file, "_whole_frames", flagged)
    clip = Clip(tmp_path / "a.mkv", 0, 30)
    assert len(read_frames(clip, 0, 17)) == 17
    assert "a.mkv is damaged" in refusal(lambda: read_frames(clip, 0, 18))


def test_a_broken_video_that_is_too_short_says_both(tmp_path: Path) -> None:
    for number in range(4):
        write_video(tmp_path / f"{number}.mkv", 12, video=number)
    truncate(tmp_path / "1.mkv", 0.5)
    (line,) = open_clips(tmp_path, 11).warnings()
    assert line.startswith("skipped 1.mkv: is too short: ") and "11 are needed (it is cut off)" in line


def test_what_is_whole_is_not_said_to_be_cut_off(tmp_path: Path) -> None:
    """Also with sound that is longer than the picture."""
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        frames = make_frames(12)
        stream, sound = add_stream(container, frames), container.add_stream("aac", rate=44100)
        fill(container, (stream, frames))
        for index in range(100):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, 1024 * index
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert length_of(tmp_path / "sound.mkv") == (12, "")
