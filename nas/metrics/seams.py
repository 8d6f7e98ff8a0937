"""Seams: steps of the error along a line between tiles, or from the last frame of a chunk to the next one.

A decoder that works in pieces shows where they meet. There the error jumps, all along the line; elsewhere its steps
have either sign and average out. So steps are averaged over runs of 16 pixels before they are compared.
"""

from collections.abc import Sequence

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional

from nas.metrics.frames import ValueRange, checked_videos, to_steps

_RUN = 16
"""Pixels of a run, or all there are."""
_LEAST = 0.1
"""8-bit steps, invisible, that are added to what is compared: where there is no error there is no seam."""


def tile_seams(prediction: Tensor, target: Tensor, value_range: ValueRange, period: int) -> Tensor:
    """The worst line between tiles of each clip, `(b,)`: its steps over the median of all lines; seams are far above 1.

    Args:
        prediction: the video that may have seams.
        target: the video that it is judged against.
        value_range: of both.
        period: distance in pixels of the lines where tiles may meet, such as the compression of the latents.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    lines = line_steps(prediction, target, value_range)
    worst = [worst_step(each, range(period - 1, each.shape[1], period)) for each in lines]
    return torch.maximum(*worst)


def chunk_seams(prediction: Tensor, target: Tensor, value_range: ValueRange, starts: Sequence[int]) -> Tensor:
    """The worst frame at which a chunk begins, `(b,)`: its step over the median of all frames; seams are far above 1.

    Args:
        prediction: the video that may have seams.
        target: the video that it is judged against.
        value_range: of both.
        starts: frames at which chunks begin, none of them 0.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    return worst_step(frame_steps(prediction, target, value_range), [start - 1 for start in starts])


def line_steps(prediction: Tensor, target: Tensor, value_range: ValueRange) -> tuple[Tensor, Tensor]:
    """Steps of the error between neighbours in 8-bit steps, mean over frames: across columns `(b, w - 1)`, across rows
    `(b, h - 1)`.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    error = _error(prediction, target, value_range)
    return _across_columns(error), _across_columns(error.transpose(3, 4))


def frame_steps(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """Step of the error from each frame to the next in 8-bit steps, `(b, t - 1)`, by squares of 16x16 pixels.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    error = _error(prediction, target, value_range)
    run = [min(_RUN, side) for side in error.shape[3:]]
    return functional.avg_pool3d(error, (1, *run)).diff(dim=2).abs().mean(dim=(1, 3, 4))


def worst_step(steps: Tensor, places: Sequence[int]) -> Tensor:
    """The largest of the steps `(b, n)` at these places over the median of all n, `(b,)`; 1 where there is no place."""
    if not len(places) or not steps.shape[1]:
        return torch.ones(len(steps))
    worst, usual = steps[:, list(places)].amax(dim=1), steps.median(dim=1).values
    return ((worst + _LEAST) / (usual + _LEAST)).float().cpu()


def _error(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    x, y = checked_videos(prediction, target, value_range)
    return to_steps(x, value_range) - to_steps(y, value_range)


def _across_columns(error: Tensor) -> Tensor:
    run = min(_RUN, error.shape[3])
    runs = functional.avg_pool3d(error, (1, run, 1)).diff(dim=4).abs()
    return reduce(runs, "b c t h w -> b w", "mean")
