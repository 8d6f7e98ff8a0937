"""Samples in which one scene ends and another begins: no decoder with a memory can know what comes after a cut."""

import numpy as np

_GRID = 16
"""Rows and columns of what frames are compared as: little moves across so large a cell from one frame to the next."""
_LEAST = 12.0
"""Mean difference of a cell, of 255, from which it counts as another one."""
_SHARE = 0.6
"""Share of the cells that have to be others."""
_STANDS_OUT = 4.0
"""How many times the median difference of two frames it has to be: a shaken camera changes every frame."""


def has_cut(frames: np.ndarray) -> bool:
    """Whether there is a scene cut in whole frames: uint8 `(t, h, w, 3)`.

    Fades, and cuts to what looks alike, are not seen.
    """
    small = np.stack([_shrink(frame) for frame in frames])
    changes = np.abs(np.diff(small, axis=0)).mean(axis=-1)
    if len(changes) < 2:
        return False
    everywhere = (changes > _LEAST).mean(axis=(1, 2)) > _SHARE
    each = changes.mean(axis=(1, 2))
    return bool((everywhere & (each > _STANDS_OUT * np.median(each))).any())


def _shrink(frame: np.ndarray) -> np.ndarray:
    """Means over the cells of the grid, `(rows, columns, 3)`."""
    rows, columns = (np.linspace(0, side, _GRID, endpoint=False, dtype=int) for side in frame.shape[:2])
    heights, widths = (np.diff([*edges, side]) for edges, side in zip((rows, columns), frame.shape[:2], strict=True))
    sums = np.add.reduceat(np.add.reduceat(frame, rows, axis=0, dtype=np.float32), columns, axis=1)
    means: np.ndarray = sums / (heights[:, None, None] * widths[None, :, None])
    return means
