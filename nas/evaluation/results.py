"""What an evaluation found, as plain values. Needs no torch."""

from dataclasses import asdict, dataclass
from typing import Any

from nas.data.settings import Split


@dataclass(frozen=True)
class Quality:
    """Frames against a reference: means over frames, then over samples."""

    psnr: float
    """PSNR in dB for values in [-1, 1], mean over all frames."""
    psnr_first: float
    """PSNR in dB of the first frame, which a causal decoder makes without a past."""
    psnr_rest: float | None
    """PSNR in dB of all other frames; None if there are none."""
    ssim: float
    """Structural similarity, at most 1, mean over all frames."""
    ssim_first: float
    """Structural similarity of the first frame."""
    ssim_rest: float | None
    """Structural similarity of all other frames; None if there are none."""
    lpips: float | None
    """LPIPS, 0 is equal; None if it cannot be computed here."""


@dataclass(frozen=True)
class ClipEvaluation:
    """A decoder on one clip."""

    name: str
    """Name of the clip."""
    crops: int
    """Samples that were cut out of the clip."""
    to_teacher: Quality | None
    """Quality against the teacher's frames; None for the teacher itself."""
    to_truth: Quality
    """Quality against the video."""


@dataclass(frozen=True)
class Evaluation:
    """One decoder on one split; every clip counts the same."""

    split: Split
    """Which of the clips it was judged on."""
    targets: str
    """Key of the targets, which stands for teacher, clips, crops and seed."""
    to_teacher: Quality | None
    """Quality against the teacher's frames for the same latents; None for the teacher itself."""
    to_truth: Quality
    """Quality against the video that was encoded."""
    clips: tuple[ClipEvaluation, ...]
    """The same clip by clip."""
    lpips: str
    """"on", or why LPIPS is missing."""

    @property
    def psnr_teacher(self) -> float | None:
        """PSNR against the teacher in dB; None for the teacher itself."""
        return self.to_teacher.psnr if self.to_teacher else None

    @property
    def ssim_teacher(self) -> float | None:
        """SSIM against the teacher; None for the teacher itself."""
        return self.to_teacher.ssim if self.to_teacher else None

    @property
    def psnr_truth(self) -> float:
        """PSNR against the video in dB."""
        return self.to_truth.psnr

    @property
    def ssim_truth(self) -> float:
        """SSIM against the video."""
        return self.to_truth.ssim

    @property
    def crops(self) -> int:
        """Number of samples that were judged."""
        return sum(clip.crops for clip in self.clips)

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Evaluation":
        """Inverse of `to_dict`."""
        clips = tuple(ClipEvaluation(**{**clip, **_qualities(clip)}) for clip in data["clips"])
        return cls(**{**data, **_qualities(data), "clips": clips})


def _qualities(data: dict[str, Any]) -> dict[str, Quality | None]:
    return {name: data[name] and Quality(**data[name]) for name in ("to_teacher", "to_truth")}
