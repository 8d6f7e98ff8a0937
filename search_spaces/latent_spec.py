"""LatentSpec: the channels, compression, frame rule and statistics of a teacher's latents."""

from dataclasses import dataclass
from math import inf, prod
from typing import Any, Literal, get_args

FrameRule = Literal["leading", "multiple", "leading_if_odd"]
"""How n latent frames become video frames at a temporal compression of T.

leading         T(n-1)+1: the first latent frame is one frame, every other one is T (most teachers).
multiple        Tn (Video DC-AE).
leading_if_odd  T(n-1)+1 for odd n, Tn for even n (CogVideoX).
"""


@dataclass(frozen=True)
class LatentSpec:
    """The geometry and statistics of a teacher's latents `(b, c, t, h, w)`, exactly as its `decode` takes them.

    They stand for frames `(b, 3, num_frames(t), spatial * h, spatial * w)`.

    Raises:
        ValueError: a number is out of its range, or mean or std has not one value per channel.
    """

    channels: int
    """Number of latent channels, c."""
    spatial: int
    """Pixels per latent position along height and along width, a power of two."""
    temporal: int
    """Video frames per latent frame, a product of twos and threes (Mochi: 6)."""
    frame_rule: FrameRule = "leading"
    """Rule by which a number of latent frames gives a number of video frames."""
    mean: tuple[float, ...] = ()
    """Mean of each latent channel, in the units of the latents; empty if unknown, which counts as zeros."""
    std: tuple[float, ...] = ()
    """Standard deviation of each latent channel, in the same units; empty if unknown, which counts as ones."""
    causal: bool = True
    """Whether the teacher's convolutions and attention look back only; its norms may still run over the clip."""

    def __post_init__(self) -> None:
        self._check_types()
        for name, value in (("channels", self.channels), ("spatial", self.spatial), ("temporal", self.temporal)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.spatial & (self.spatial - 1):
            raise ValueError(f"spatial compression must be a power of two, got {self.spatial}")
        if prod(self.temporal_steps) != self.temporal:
            raise ValueError(f"temporal compression must be a product of twos and threes, got {self.temporal}")
        if self.frame_rule not in get_args(FrameRule):
            raise ValueError(f"frame_rule must be one of {', '.join(get_args(FrameRule))}, got '{self.frame_rule}'")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != self.channels:
                raise ValueError(f"latents {name} needs {self.channels} values, one per channel, got {len(values)}")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"latents std must be positive, got {min(self.std)}")

    def _check_types(self) -> None:
        """Refuse what a JSON file may hold in place of whole and finite numbers: 1.5, true, NaN, "16"."""
        for name, value in (("channels", self.channels), ("spatial", self.spatial), ("temporal", self.temporal)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        if not isinstance(self.causal, bool):
            raise ValueError(f"causal must be true or false, got {self.causal!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not all(isinstance(value, (int, float)) and abs(value) < inf for value in values):
                raise ValueError(f"latents {name} must be finite numbers")

    @property
    def temporal_steps(self) -> tuple[int, ...]:
        """Factors by which stages upsample in time, the largest first: (2, 2) for 4, (3, 2) for 6."""
        steps, rest = [], self.temporal
        for factor in (3, 2):
            while rest % factor == 0:
                steps.append(factor)
                rest //= factor
        return tuple(steps)

    @property
    def spatial_doublings(self) -> int:
        """How often height and width double from latents to frames."""
        return self.spatial.bit_length() - 1

    @property
    def may_drop_leading(self) -> bool:
        """Whether there are clips whose first latent frame becomes one frame although others become more."""
        return self.temporal > 1 and self.frame_rule != "multiple"

    def patch_geometry(self) -> dict[str, int]:
        """Frames and pixels that one latent position stands for, as constructors of the role `shortcut` take them."""
        factors = {"temporal_factor": self.temporal, "spatial_factor": self.spatial}
        return factors | {"leading": self.may_drop_leading}

    def drops_leading(self, num_latents: int) -> bool:
        """Whether the first latent frame of `num_latents` becomes one frame instead of `temporal` frames."""
        return self.frame_rule == "leading" or (self.frame_rule == "leading_if_odd" and num_latents % 2 == 1)

    def num_frames(self, num_latents: int) -> int:
        """Number of video frames that `num_latents` latent frames decode to; ValueError below 1."""
        if num_latents < 1:
            raise ValueError(f"at least 1 latent frame is needed, got {num_latents}")
        return self.temporal * num_latents - (self.temporal - 1) * self.drops_leading(num_latents)

    def frames_formula(self) -> str:
        """Formula, for people, of the frames that n latent frames decode to, such as "4(n-1)+1"."""
        leading, multiple = f"{self.temporal}(n-1)+1", f"{self.temporal}n"
        both = f"{leading} if n is odd, else {multiple}"
        return {"leading": leading, "multiple": multiple, "leading_if_odd": both}[self.frame_rule]

    def num_latents(self, num_frames: int) -> int:
        """Number of latent frames for exactly `num_frames`; ValueError with the nearest counts if there is none."""
        guess = max(1, -(-num_frames // self.temporal))
        for candidate in (guess, guess + 1):
            if candidate >= 1 and self.num_frames(candidate) == num_frames:
                return candidate
        counts = [self.num_frames(n) for n in range(max(1, guess - 2), guess + 3)]
        near = sorted(sorted(set(counts), key=lambda count: abs(count - num_frames))[:2])
        raise ValueError(
            f"{num_frames} frames do not fit latents with {self.temporal}x compression in time "
            f"(frame rule '{self.frame_rule}'): the nearest valid counts are {' and '.join(map(str, near))}"
        )

    def largest_clip(self, num_frames: int) -> int:
        """Largest number of video frames up to `num_frames` that latents decode to; ValueError if there is none."""
        fitting = [n for n in range(1, num_frames + 1) if self.num_frames(n) <= num_frames]
        if not fitting:
            raise ValueError(f"latents decode to {self.num_frames(1)} frames at least, got {num_frames}")
        return max(self.num_frames(n) for n in fitting)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape `(c, t, h, w)` of the latents of a video.

        Args:
            num_frames: frames of the video, a number that the frame rule gives.
            height: of the video in pixels, a multiple of `spatial`.
            width: likewise.

        Raises:
            ValueError: the size is not on the grid of the latents; names the nearest that are.
        """
        for name, value in (("height", height), ("width", width)):
            if value < 1 or value % self.spatial:
                below = max(self.spatial, value // self.spatial * self.spatial)
                raise ValueError(
                    f"{name} must be a multiple of {self.spatial}, got {value}: "
                    f"the nearest are {below} and {below + self.spatial}"
                )
        return self.channels, self.num_latents(num_frames), height // self.spatial, width // self.spatial

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        return {
            "channels": self.channels,
            "spatial": self.spatial,
            "temporal": self.temporal,
            "frame_rule": self.frame_rule,
            "mean": list(self.mean),
            "std": list(self.std),
            "causal": self.causal,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LatentSpec":
        """Inverse of `to_dict`."""
        return cls(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
