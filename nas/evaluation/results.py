"""What an evaluation found, as plain values. Needs no torch."""

from dataclasses import asdict, dataclass
from typing import Any

from nas.data.settings import Split

ROWS = "the video, the teacher, the model, and the difference of the last two times 8"
"""What pictures show, from top to bottom or from left to right."""

SPANS: tuple[tuple[int, int | None], ...] = ((1, 17), (18, 49), (50, 121), (122, None))
"""First and last frame, from 1 on, of the parts of a decode in which drift would show; the last one has no end."""


@dataclass(frozen=True)
class Quality:
    """Frames against a reference: means over frames, then over samples.

    What records of earlier versions do not have is None.
    """

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
    """LPIPS with AlexNet, 0 is equal; None if it cannot be computed here."""
    lpips_vgg: float | None = None
    """LPIPS with VGG16, likewise."""
    psnr_spans: tuple[float | None, ...] | None = None
    """PSNR in dB of the frames of each of `SPANS`; None for those that begin after the last frame."""
    sharpness: float | None = None
    """High-band energy over that of the reference: 1 is as sharp, less is blurred."""
    detail_error: float | None = None
    """How far the strength of fine detail is off, place by place: 0 is equal, 1 no detail at all."""
    colour_mean: tuple[float, ...] | None = None
    """Drift of the mean of R, G and B in 8-bit steps; positive is too bright."""
    colour_std: tuple[float, ...] | None = None
    """Drift of the standard deviation of R, G and B in 8-bit steps; negative is too little contrast."""
    delta_e: float | None = None
    """Mean CIEDE2000."""
    flicker: float | None = None
    """Error of the change from frame to frame, mean over the pixels in 8-bit steps; None of a single frame."""
    stuck_frames: float | None = None
    """Share of the frames that repeat the one before although the reference moves; None of a single frame."""
    tile_seams: float | None = None
    """Worst step of the error across a line of the latents' grid over the median of all lines; about 1 is none."""
    chunk_seams: float | None = None
    """Worst step of the error to a frame that begins a latent over the median of all frames; None if there is none."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Quality":
        """Of JSON primitives."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class ClipEvaluation:
    """A decoder on one clip."""

    name: str
    """Name of the clip."""
    crops: int
    """Samples that were cut out of the clip."""
    to_teacher: Quality | None
    """Quality against the teacher's frames; None for the teacher itself."""
    to_truth: Quality | None
    """Quality against the video; None for latents that there is no video of."""


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

    def not_measured(self) -> list[str]:
        """What these numbers say nothing about, in words."""
        quality = self.to_teacher or self.to_truth
        nets = {"AlexNet": quality.lpips, "VGG16": quality.lpips_vgg}
        missing = [f"LPIPS with {net}" for net, value in nets.items() if value is None] + ["rFVD"]
        if quality.sharpness is None:
            return [*missing, "sharpness, colour, flicker and seams"]
        known = sum(each is not None for each in quality.psnr_spans or ())
        beyond = [] if known == len(SPANS) else [f"decodes of more than {SPANS[known - 1][1]} frames"]
        return [*missing, *beyond, "latents that a diffusion model made"]

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Evaluation":
        """Inverse of `to_dict`."""
        clips = tuple(ClipEvaluation(**{**clip, **_qualities(clip)}) for clip in data["clips"])
        return cls(**{**data, **_qualities(data), "clips": clips})


def _qualities(data: dict[str, Any]) -> dict[str, Quality | None]:
    return {name: data[name] and Quality.from_dict(data[name]) for name in ("to_teacher", "to_truth")}
