"""Settings of a distillation, and the ones that were found to work."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Precision = Literal["auto", "float32", "bfloat16"]
"""float32; bfloat16: convolutions in bfloat16, weights and losses in float32; auto: bfloat16 where it is faster."""

Decay = Literal["cosine", "none"]
"""What becomes of the learning rate after the warm-up: half a cosine down to nearly 0, or it stays at its peak."""

WEIGHTS = (
    "teacher_weight",
    "truth_weight",
    "feature_weight",
    "perceptual_weight",
    "motion_weight",
    "detail_weight",
    "texture_weight",
    "adversarial_weight",
)
"""Settings that say what a part of the loss counts."""

_CAME_LATER = {
    "adversarial_weight": ("adversarial_weight", "critic_rate_factor"),
    "texture_weight": ("texture_weight",),
}
"""Weights that settings did not always have, and what says nothing where they are 0."""

_NOT_OF_THE_WEIGHTS = ("report_every", "checkpoint_every")
"""Settings that say how often a run reports or saves."""


@dataclass(frozen=True)
class DistillSettings:
    """How a student is trained."""

    steps: int
    """Optimizer steps of the whole run."""
    batch_size: int = 4
    """Samples per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW for a student that begins with nothing."""
    helped_rate_factor: float = 0.5
    """Learning rate where there is a shortcut, which leaves the rest little to find, relative to `learning_rate`."""
    shortcut_rate_factor: float = 0.1
    """Learning rate of the shortcut, which starts at its least-squares solution, relative to that of the rest."""
    warmup_steps: int = 5
    """Steps over which the learning rate rises to its peak."""
    decay: Decay = "cosine"
    """What becomes of it afterwards."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's averages of the gradient and of its square."""
    ema_decay: float = 0.999
    """Largest decay of the moving average of the weights, which is what is scored and returned."""
    clip_norm: float = 1.0
    """Gradients with a larger norm than this are scaled down to it."""
    teacher_weight: float = 1.0
    """Weight of the L1 distance to the teacher's frames."""
    truth_weight: float = 0.0
    """Weight of the L1 distance to the video itself."""
    feature_weight: float = 0.1
    """Weight of feature alignment."""
    perceptual_weight: float = 0.0
    """Weight of LPIPS, which joins only where its weights are on the machine."""
    motion_weight: float = 0.0
    """Weight of the L1 distance between the differences of successive frames and the teacher's: against flicker."""
    detail_weight: float = 0.0
    """Weight of the L1 distance between what a blur takes away and the teacher's: against blur."""
    texture_weight: float = 0.0
    """Weight of the squared distance between how strong details are, place by place, and the teacher's: against blur
    where details cannot be predicted."""
    adversarial_weight: float = 0.0
    """Weight of a critic's opinion of the frames; 0: there is no critic."""
    critic_rate_factor: float = 1.0
    """Learning rate of the critic, relative to `learning_rate`."""
    seed: int = 0
    """Seed of the order of the samples and of the projection heads."""
    precision: Precision = "auto"
    """Number format of the convolutions."""
    report_every: int = 10
    """Steps between two scores."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""

    def identity(self) -> dict[str, Any]:
        """Everything that the trained weights depend on, JSON primitives: not how often it reports or saves.

        What came later and is not used is not in it, so that runs from before there was such a thing are found again.
        """
        everything = asdict(self) | {"betas": list(self.betas)}
        unused = {name for weight, names in _CAME_LATER.items() if not getattr(self, weight) for name in names}
        return {key: value for key, value in everything.items() if key not in (*_NOT_OF_THE_WEIGHTS, *unused)}

    def __post_init__(self) -> None:
        at_least = {"steps": 1, "batch_size": 1, "warmup_steps": 0, "report_every": 1, "checkpoint_every": 1}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "critic_rate_factor", "clip_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        factors = ("helped_rate_factor", "shortcut_rate_factor", "weight_decay")
        for name in (*factors, *WEIGHTS):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, value in (("ema_decay", self.ema_decay), ("betas", self.betas[0]), ("betas", self.betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
        self._check_choices()

    def _check_choices(self) -> None:
        if not (self.teacher_weight or self.truth_weight):
            raise ValueError("teacher_weight and truth_weight must not both be 0: nothing would say what frames are")
        for name, choices in (("precision", Precision), ("decay", Decay)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ValueError(f"{name} must be one of {known}, got '{getattr(self, name)}'")
