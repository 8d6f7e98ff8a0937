"""Writes small real videos whose frames say which they are: a moving pattern above, two rows of bars below.

The bars spell the number of the video and of the frame in bits, wide enough to survive lossy codecs, so a test can tell
from the pixels alone which frames it was given.
"""

import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "ffv1", ".avi": "mpeg4", ".webm": "libvpx"}
"""The encoder for each kind of file; ffv1 keeps every bit."""
_CONTAINERS = {".mkv": "matroska"}
_BITS = 8
_DARK, _LIGHT = 20, 235


def make_frames(count: int, height: int = 32, width: int = 48, video: int = 0) -> np.ndarray:
    """uint8 RGB `(count, height, width, 3)`; each shows the number of the video and its own, both below 256."""
    time, y, x = np.ogrid[:count, :height, :width]
    ramp = 3 * x + 5 * y + 7 * time + 41 * video
    frames = np.stack([ramp, 2 * ramp + 3 * time, 255 - ramp], axis=-1) % 256
    bits = np.arange(width) * _BITS // width
    for row, numbers in enumerate((np.full(count, video), np.arange(count))):
        bars = np.where((numbers[:, None] >> bits) & 1, _LIGHT, _DARK)
        frames[:, _bar_rows(height, row)] = bars[:, None, :, None]
    return frames.astype(np.uint8)


def read_numbers(frame: np.ndarray) -> tuple[int, int]:
    """Video and frame that `make_frames` wrote into a frame `(h, w, 3)`, in spite of compression or another size."""
    height, width = frame.shape[:2]
    owner = np.arange(width) * _BITS // width
    found = []
    for row in range(2):
        bars = frame[_bar_rows(height, row)]
        found.append(sum(int(bars[:, owner == bit].mean() > 127) << bit for bit in range(_BITS)))
    return found[0], found[1]


def write_video(path: Path, count: int, height: int = 32, width: int = 48, video: int = 0) -> np.ndarray:
    """Write a video of `make_frames` (even height and width), make its folder, return the frames."""
    frames = make_frames(count, height, width, video)
    write_frames(path, frames)
    return frames


def damage_video(path: Path) -> None:
    """Noise in the second frame, which all further ones are made from; header and end stay whole."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4 + len(data) // 10
    data[start : start + 400] = bytes(range(200)) * 2
    path.write_bytes(bytes(data))


def write_frames(path: Path, *runs: np.ndarray, rotation: int = 0, codec: str = "") -> None:
    """Write uint8 RGB frames `(t, h, w, 3)`.

    Args:
        path: its extension, in any case, decides on the container.
        runs: frames of even height and width, one run after the other; each may be of another size.
        rotation: angle in degrees, counter-clockwise, that is stored beside the pixels for players.
        codec: default as in `CODECS`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    codec = codec or CODECS[suffix]
    # Else Matroska draws an identity, and which split a video falls into is chance.
    same_bytes = {"fflags": "+bitexact"}
    with av.open(str(path), "w", format=_CONTAINERS.get(suffix, suffix[1:]), options=same_bytes) as container:
        stream = container.add_stream(codec, rate=24)
        if rotation:
            stream.set_display_rotation(rotation)
        first = 0
        for run in runs:
            encoder = av.CodecContext.create(codec, "w") if first else stream.codec_context
            for packet in _encode(encoder, run, first):
                packet.stream = stream
                container.mux(packet)
            first += len(run)


def _encode(encoder: Any, frames: np.ndarray, first: int) -> list[Any]:
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}.get(encoder.name, "yuv420p")
    encoder.time_base = Fraction(1, 24)
    encoder.bit_rate = 8_000_000
    encoder.thread_count = 1
    if encoder.name == "libx264":
        encoder.options = {"crf": "4", "preset": "ultrafast"}
    packets: list[Any] = []
    for number, pixels in enumerate(frames, start=first):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = number
        packets += encoder.encode(frame)
    return packets + list(encoder.encode(None))


def _bar_rows(height: int, row: int) -> slice:
    """The rows of pixels of a row of bars: the third or the last quarter of the frame."""
    return slice(height * (2 + row) // 4, height * (3 + row) // 4)


def write_many(folder: Path, count: int, frames: int = 20, size: int = 64) -> None:
    """Many videos of different content, quickly: a few are encoded, and each of the others is one of them and a tag.

    They look as if they had been written a minute ago, so that what is found out about them may be remembered.
    """
    folder.mkdir(parents=True)
    kinds = []
    for kind in range(min(count, 6)):
        write_video(folder / "kind.mp4", frames, size, size, kind)
        kinds.append((folder / "kind.mp4").read_bytes())
    (folder / "kind.mp4").unlink()
    minute_ago = time.time() - 60
    for number in range(count):
        path = folder / f"{number:05d}.mp4"
        # A box of a type that every reader skips.
        path.write_bytes(kinds[number % len(kinds)] + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
        os.utime(path, (minute_ago, minute_ago))
