"""What a set of targets is cut from, as plain values. Needs no torch."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Split = Literal["train", "score", "test"]
"""What clips are for: to train on, to choose by, to judge finished models by."""

SPLITS: tuple[Split, ...] = ("train", "score", "test")


MAX_BYTES = 20 * 10**9
"""Bytes of the largest set that is kept, unless another bound is given."""


@dataclass(frozen=True)
class TargetSettings:
    """What is cut out of the clips."""

    crop: int
    """Height and width of a crop in pixels; a multiple of the teacher's compression."""
    num_frames: int
    """Frames of each crop; on the teacher's grid."""
    train_crops: int
    """Random crops of each training clip."""
    score_crops: int
    """Crops of each clip that candidates are scored on; the first one central, from the first frame on."""
    test_crops: int
    """Crops of each clip that finished models are tested on; the first one central, from the first frame on."""
    taps: tuple[str, ...]
    """Places in the teacher's decoder whose features are kept."""
    seed: int = 0
    """Seed of the random crops."""
    frames: bool = True
    """Whether the teacher's frames are kept. Without them it decodes no further than to the last tap, if at all."""
    sampled: bool = False
    """Whether latents of training crops are samples of the encoder's distribution; those of all others are its mode."""

    def identity(self) -> dict[str, Any]:
        """Everything that targets depend on of this, JSON primitives.

        Where no latents are samples nothing says so, so that targets from before there were any are found again.
        """
        everything = asdict(self)
        return {name: value for name, value in everything.items() if name != "sampled" or self.sampled}

    def crops(self, split: Split) -> int:
        """Crops per clip of a split."""
        return {"train": self.train_crops, "score": self.score_crops, "test": self.test_crops}[split]
