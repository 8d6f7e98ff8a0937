"""What candidates are trained on and for how long, and what models are judged on: less on a CPU.

A recipe is a value, chosen once for a device and handed on. Needs no torch, so that help texts can quote it.
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.data.settings import TargetSettings
from nas.distillation.settings import DistillSettings

if TYPE_CHECKING:
    import torch

    from nas.teachers import Teacher


@dataclass(frozen=True)
class Crops:
    """Which crops of the clips a set of targets holds, for teachers of any compression."""

    pixels: int
    """Height and width of a crop in pixels; more for a teacher whose compression would leave fewer than 4x4 latents."""
    latent_frames: int
    """Latent frames of a crop. Three are the least at which a causal decoder is in its steady state."""
    train: int = 0
    """Crops of each clip to train on."""
    score: int = 0
    """Crops of each clip to score on."""
    test: int = 0
    """Crops of each clip to test on."""
    taps: int = 0
    """Number of the teacher's first taps that are kept; the paper aligns the middle and the first up block."""
    most: int | None = None
    """Crops of all clips together; of more than that some are chosen. None: as many as the disk is meant to hold."""
    sampled: bool = False
    """Whether latents to train on are samples of the encoder's distribution, with its noise, instead of its mode."""

    def identity(self) -> dict[str, Any]:
        """All of this, JSON primitives; nothing says so where no latents are samples, as before there were any."""
        return {name: value for name, value in asdict(self).items() if name != "sampled" or self.sampled}

    def settings(self, teacher: "Teacher") -> TargetSettings:
        """The same for this teacher."""
        return TargetSettings(
            crop=max(self.pixels, 4 * teacher.spec.spatial),
            num_frames=teacher.spec.num_frames(self.latent_frames),
            train_crops=self.train,
            score_crops=self.score,
            test_crops=self.test,
            taps=teacher.tap_names[: self.taps],
            sampled=self.sampled,
        )


@dataclass(frozen=True)
class Recipe:
    """How students are trained and judged on one kind of device."""

    short_steps: int
    """Default length of the short distillation of a candidate, in steps."""
    full: str
    """Name of the phases of a full distillation, unless others are asked for (`nas.distillation.phases`)."""
    search_seconds: float | None
    """Default time in seconds after which a search starts no new candidate; None: no limit."""
    batch_size: int
    """Samples per step of a short distillation. On a CPU more steps are worth more than larger ones."""
    short: Crops
    """What candidates are trained and scored on."""
    judging: Crops
    """What finished models are judged on: clips that neither training nor selection saw."""
    spread_db: float | None = None
    """Standard deviation over seeds of a decoder's score, by `nas.benchmark rank`; None: nobody has measured it.

    Of decoders with a linear shortcut: scores of others differ more, but are so much lower that it does not matter.
    """

    def distillation(self, steps: int, seed: int) -> DistillSettings:
        """Settings of a short distillation of this length."""
        return looked_at(DistillSettings(steps=steps, seed=seed, batch_size=self.batch_size))

    def frames_per_clip(self, teacher: "Teacher") -> int:
        """Frames that a clip must have: one number for search and finalize, so that both split the clips alike."""
        return max(crops.settings(teacher).num_frames for crops in (self.short, self.judging))


def looked_at(settings: DistillSettings) -> DistillSettings:
    """The same, scored six times on the way and saved twenty times."""
    steps = settings.steps
    return replace(settings, report_every=max(1, steps // 6), checkpoint_every=max(10, steps // 20))


CPU = Recipe(
    short_steps=450,
    full="fast",
    search_seconds=420.0,
    batch_size=1,
    short=Crops(64, 4, train=8, score=3, taps=2, most=72),
    judging=Crops(128, 5, test=2, most=16),
    spread_db=0.1,
)
"""The recipe for a few CPU cores, and the cautious start on Apple's GPUs.

However many the clips, targets take about as long as those of the embedded ones.
"""

GPU = Recipe(
    short_steps=600,
    full="full",
    search_seconds=None,
    batch_size=8,
    short=Crops(128, 5, train=48, score=8, taps=2),
    judging=Crops(256, 5, test=4, most=256),
)
"""The recipe for a CUDA GPU."""


def recipe_for(device: "torch.device") -> Recipe:
    """The recipe for what computes there."""
    return GPU if device.type == "cuda" else CPU
