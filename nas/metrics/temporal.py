"""Time: flicker, and frames that stand still. Both look at what changes from one frame to the next."""

from torch import Tensor

from nas.metrics.frames import ValueRange, checked_videos, to_steps

_MOVES = 0.5
"""Mean change from frame to frame in 8-bit steps from which on a video moves."""
_STANDS = 0.1
"""Share of the target's change below which a frame stands still."""


def frame_difference_error(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """How far the change from each frame to the next is off, `(b, t - 1)`: mean over the pixels, in 8-bit steps.

    An error that stays as it is costs nothing, one that comes and goes is flicker.

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    x, y = (to_steps(each, value_range) for each in checked_videos(prediction, target, value_range))
    return (x - y).diff(dim=2).abs().mean(dim=(1, 3, 4))


def stuck_frames(prediction: Tensor, target: Tensor, value_range: ValueRange) -> Tensor:
    """Whether each frame but the first repeats the one before although the target goes on, `(b, t - 1)`, boolean.

    It does if it changes by less than a tenth of what the target does, and that by half an 8-bit step or more (means
    over the pixels).

    Raises:
        ValueError: as `psnr_per_frame`.
    """
    videos = checked_videos(prediction, target, value_range)
    change, expected = (to_steps(each, value_range).diff(dim=2).abs().mean(dim=(1, 3, 4)) for each in videos)
    return (expected >= _MOVES) & (change < _STANDS * expected)
