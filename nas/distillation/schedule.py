"""What changes over the steps of a distillation, each as a pure function of the step, so that a resumed run agrees."""

import math

from nas.distillation.settings import Decay


def learning_rate(step: int, steps: int, peak: float, warmup_steps: int, decay: Decay = "cosine") -> float:
    """Learning rate of step 0 <= `step` < `steps`: linear warm-up to `peak`, then half a cosine down to nearly 0.

    The last step still learns, and the first one too. With `decay` "none" it stays at the peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if decay == "none":
        return peak
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def average_decay(step: int, decay: float) -> float:
    """Decay of the moving average of the weights after step `step`: it grows up to `decay`.

    (1 + step) / (10 + step) averages about the last tenth of what was done so far, so that the average of a short run
    is not still at its random start.
    """
    return min(decay, (1 + step) / (10 + step))
