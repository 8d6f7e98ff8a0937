"""The profile that a calibration makes: coefficients by cost class, and its error on unseen decoders."""

import dataclasses
from dataclasses import dataclass
from typing import Any, get_args

from nas.latency.prediction.typed_json import from_primitives
from nas.latency.record import Runtime

FORMAT = "calibrated-2"
"""Version of the file's format, its field `format`."""


@dataclass(frozen=True)
class CalibrationPoint:
    """One decoder that the fit did not see."""

    decoder: str
    """Architecture of the decoder in one line."""
    digest: str
    """Hash of the decoder's config."""
    height: int
    """Frame height in pixels."""
    width: int
    """Frame width in pixels."""
    num_frames: int
    """Number of frames that are decoded."""
    measured_ms: float
    """Measured time of one decode in milliseconds."""
    predicted_ms: float
    """Predicted time of one decode in milliseconds."""

    def __post_init__(self) -> None:
        if self.measured_ms <= 0 or self.predicted_ms < 0:
            raise ValueError(f"times are above 0, got {self.measured_ms} and {self.predicted_ms} ms")

    @property
    def error(self) -> float:
        """Signed relative error: negative if the prediction is too fast."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class CalibratedProfile:
    """Everything that a prediction needs, and what is known about its quality."""

    device: str
    """The device that was measured, in words."""
    method: str
    """How the decoders were measured, in one phrase."""
    runtime: Runtime
    """What executed the decoders: PyTorch or Core ML."""
    dtype: str
    """Precision that the decoders computed in: float16 or float32."""
    coefficients: dict[str, dict[str, float]]
    """Milliseconds per unit of each term of `calibrated_terms`, by setting of the compute units ("" where there is no
    choice). A term that is not here has no known cost. The fastest setting counts."""
    typical_error: float
    """Median absolute relative error on the decoders of `points`."""
    p90_error: float
    """90th percentile of the absolute relative errors on the decoders of `points`."""
    rank_correlation: float
    """Spearman's rank correlation of the measured and predicted latencies of `points`."""
    points: tuple[CalibrationPoint, ...]
    """Decoders that were not fitted to."""
    fitted_to: int
    """Number of decoders that the coefficients were fitted to."""
    fitted_on: str
    """Date and time of the fit, ISO 8601, UTC."""
    tool_version: str
    """Version of this package that made the profile."""

    def __post_init__(self) -> None:
        if self.runtime not in get_args(Runtime):
            raise ValueError(f"runtime must be one of {', '.join(get_args(Runtime))}, got '{self.runtime}'")
        if not self.coefficients or not all(map(_valid, self.coefficients.values())):
            raise ValueError("a profile needs coefficients of at least 0")

    @property
    def basis(self) -> str:
        """What the coefficients were fitted to, in words."""
        return f"{self.fitted_to} decoders, {self.method}"

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        return {"format": FORMAT, **dataclasses.asdict(self), "points": [dataclasses.asdict(p) for p in self.points]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CalibratedProfile":
        """Inverse of `to_dict`; ValueError if something is missing, unknown or of another type."""
        return from_primitives(cls, {name: value for name, value in data.items() if name != "format"})


def _valid(coefficients: dict[str, float]) -> bool:
    return bool(coefficients) and all(value >= 0 for value in coefficients.values())
