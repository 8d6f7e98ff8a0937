"""Pictures of an evaluation: a strip of a few frames as PNG, and everybody side by side as a short video."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

GAIN = 8
"""What differences are multiplied with, so that they can be seen."""
_COLUMNS = 4
"""Frames of a strip, from the first to the last at equal distances."""
_GAP = 4
"""White pixels between frames."""
_RATE = 24
"""Frames per second of a video."""
_CRF = "12"
"""Quality of the compressed video: nothing of what is shown is the codec's."""


def difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Absolute difference of two videos in [-1, 1], times `GAIN`: black where they are equal."""
    return (GAIN * (student - teacher).abs() - 1).clamp(-1, 1)


def strip(rows: Sequence[Tensor]) -> bytes:
    """A PNG with a row of frames of each video `(1, 3, t, h, w)` in [-1, 1], all of one shape, from top to bottom."""
    frames = rows[0].shape[2]
    chosen = sorted({round(index * (frames - 1) / (_COLUMNS - 1)) for index in range(_COLUMNS)})
    images = [[_pixels(row[:, :, index : index + 1])[0] for index in chosen] for row in rows]
    return _png(_with_gaps([_with_gaps(row, axis=1) for row in images], axis=0))


def side_by_side(videos: Sequence[Tensor]) -> bytes:
    """An mp4 of videos `(1, 3, t, h, w)` in [-1, 1], all of one shape, from left to right; 24 frames per second."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=_RATE)
        for index in range(videos[0].shape[2]):
            picture = _with_gaps([_pixels(video[:, :, index : index + 1])[0] for video in videos], axis=1)
            # Its colours have half the resolution, which needs even sides.
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if index == 0:
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": _CRF}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _pixels(video: Tensor) -> np.ndarray:
    """`(1, 3, t, h, w)` in [-1, 1] -> uint8 `(t, h, w, 3)`."""
    steps = ((video[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels: np.ndarray = rearrange(steps, "c t h w -> t h w c").cpu().numpy()
    return pixels


def _with_gaps(images: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Images beside each other (axis 1) or below each other (axis 0), with white between them."""
    shape = list(images[0].shape)
    shape[axis] = _GAP
    joined = [part for image in images for part in (np.full(shape, 255, np.uint8), image)]
    return np.concatenate(joined[1:], axis=axis)


def _png(image: np.ndarray) -> bytes:
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, _RATE)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))
