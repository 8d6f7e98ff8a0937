"""Frames that a student made some steps ago: a critic that forgets them lets the student come back to their faults."""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor, nn

from nas.machine.processes import Processes

_KEPT = 16
"""Samples that are kept."""
_EVERY = 4
"""Steps between two that are kept, one sample of each: so the oldest is of 64 steps ago."""
_SHARE = 0.5
"""Share of earlier frames among those that are shown."""


class Replay(nn.Module):
    """Some earlier samples, in float16. Which are kept and shown depends on step, place and seed alone.

    A sample is kept at a place that is not read in the same step, so that a step that is tried again, or that comes in
    pieces, is the same.

    Args:
        shape: of the frames of a sample, `(3, t, h, w)`.
        batch_size: samples of a step.
        seed: of what is shown.
    """

    frames: Tensor

    def __init__(self, shape: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.register_buffer("frames", torch.zeros(_KEPT, *shape, dtype=torch.float16))

    def mix(self, frames: Tensor, step: int, places: Sequence[int]) -> Tensor:
        """The same `(b, 3, t, h, w)` with earlier frames in the place of some.

        Args:
            frames: new ones.
            step: steps done before this one.
            places: of the samples in the batch of the step.
        """
        drawn = [self._drawn(step, place) for place in places]
        rows = zip(frames, drawn, strict=True)
        return torch.stack([new if slot is None else self.frames[slot].float() for new, slot in rows])

    def keep(self, frames: Tensor, step: int, places: Sequence[int]) -> None:
        """Keep one sample of the batch if that is due and it is among these; arguments as of `mix`."""
        if step % _EVERY == 0 and self._kept_place(step) in places:
            self.frames[self._next_slot(step)] = frames[places.index(self._kept_place(step))]

    def share(self, step: int, processes: Processes) -> None:
        """Give what one process has kept in this step to all of them."""
        if step % _EVERY == 0 and processes.count > 1:
            kept = self.frames[self._next_slot(step)]
            if self._kept_place(step) not in processes.share(range(self.batch_size)):
                kept.zero_()
            processes.add_up([kept])

    def _kept_place(self, step: int) -> int:
        """Place in the batch of the sample that is kept."""
        return step // _EVERY % self.batch_size

    def _next_slot(self, step: int) -> int:
        """Where the next sample goes, in this step or a later one."""
        return -(-step // _EVERY) % _KEPT

    def _drawn(self, step: int, place: int) -> int | None:
        """What is shown at a place of the batch; None: the new frames."""
        draw = Random(f"{self.seed} {step} {place}")
        count = min(-(-step // _EVERY), _KEPT - 1)
        if count == 0 or draw.random() >= _SHARE:
            return None
        return (self._next_slot(step) - 1 - draw.randrange(count)) % _KEPT
