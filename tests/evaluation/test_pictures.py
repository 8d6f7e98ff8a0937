"""Pictures of an evaluation hold the pixels that they are said to hold."""

import io

import av
import numpy as np
import torch
from torch import Tensor

from nas.evaluation.pictures import difference, side_by_side, strip


def grey(level: float, frames: int = 3) -> Tensor:
    """Frames of 16x24 that are all grey, `level` in 8-bit steps."""
    return torch.full((1, 3, frames, 16, 24), level / 127.5 - 1)


def frames_of(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_strip_has_a_row_of_frames_for_each_video() -> None:
    fading = torch.cat([grey(level, 1) for level in (0, 51, 102, 153, 204, 255)], dim=2)
    (image,) = frames_of(strip([fading, grey(17, 6)]))
    assert image.shape == (2 * 16 + 4, 4 * 24 + 12, 3)
    assert [int(image[8, 28 * column + 12, 0]) for column in range(4)] == [0, 102, 153, 255]
    assert (image[20:, :24] == 17).all() and (image[16:20] == 255).all() and (image[:, 24:28] == 255).all()
    (single,) = frames_of(strip([grey(17, 1)]))
    assert single.shape == (16, 24, 3)


def test_differences_are_eight_times_as_large_whatever_their_sign() -> None:
    student = torch.cat([grey(110, 1), grey(90, 1), grey(200, 1), grey(100, 1)], dim=2)
    (image,) = frames_of(strip([difference(student, grey(100, 4))]))
    assert [int(image[8, 28 * column + 12, 0]) for column in range(4)] == [80, 80, 255, 0]


def test_a_video_shows_all_of_them_beside_each_other() -> None:
    frames = frames_of(side_by_side([grey(40), grey(120), grey(220)]))
    assert len(frames) == 3 and frames[0].shape == (16, 3 * 24 + 8, 3)
    for frame in frames:
        assert np.allclose([frame[8, 28 * column + 12, 1] for column in range(3)], [40, 120, 220], atol=3)
