"""The profile that a calibration makes: coefficients by cost class, and its error on unseen decoders."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from nas.latency.record import Runtime
from nas.terminal.errors import UserError

FORMAT = "calibrated-2"
"""Of the file."""


@dataclass(frozen=True)
class CalibrationPoint:
    """One decoder that the fit did not see."""

    decoder: str
    """Its architecture in one line."""
    digest: str
    """Of its config."""
    height: int
    """Of the decoded frames."""
    width: int
    """Of the decoded frames."""
    num_frames: int
    """Decoded frames."""
    measured_ms: float
    """Of one decode."""
    predicted_ms: float
    """Of one decode."""

    @property
    def error(self) -> float:
        """Relative, signed: negative if the prediction is too fast."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class CalibratedProfile:
    """Everything that a prediction needs, and what is known about its quality."""

    device: str
    """What was measured, in words."""
    method: str
    """How it was measured."""
    runtime: Runtime
    """What executed the decoders."""
    dtype: str
    """Precision that it computed in."""
    coefficients: dict[str, dict[str, float]]
    """By setting of the compute units (one, "", where there is no choice), milliseconds per unit of each of the terms
    of `calibrated_terms`; a term that is not here has no known cost. The fastest setting counts."""
    typical_error: float
    """Median absolute relative error on the decoders of `points`."""
    p90_error: float
    """Nine of ten of them are no further off."""
    rank_correlation: float
    """Spearman's, between measured and predicted latencies of `points`."""
    points: tuple[CalibrationPoint, ...]
    """Decoders that were not fitted to."""
    fitted_to: int
    """Number of decoders that it was fitted to."""
    fitted_on: str
    """Date and time, ISO 8601, UTC."""
    tool_version: str
    """Version of this package that fitted it."""

    def __post_init__(self) -> None:
        if self.runtime not in get_args(Runtime):
            raise ValueError(f"runtime must be one of {', '.join(get_args(Runtime))}, got '{self.runtime}'")
        if not self.coefficients or not all(map(_valid, self.coefficients.values())):
            raise ValueError("a profile needs coefficients of at least 0")

    @property
    def basis(self) -> str:
        """What it was fitted to, in words."""
        return f"{self.fitted_to} decoders, {self.method}"

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        return {"format": FORMAT, **dataclasses.asdict(self), "points": [dataclasses.asdict(p) for p in self.points]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CalibratedProfile":
        """Inverse of `to_dict`."""
        fields = {name: value for name, value in data.items() if name != "format"}
        return cls(**{**fields, "points": tuple(CalibrationPoint(**point) for point in data["points"])})


def _valid(coefficients: dict[str, float]) -> bool:
    return bool(coefficients) and all(value >= 0 for value in coefficients.values())


def load_calibrated(path: Path) -> CalibratedProfile:
    """The profile in a file; UserError if there is none or it is something else."""
    advice = "make one with python -m nas.latency calibrate"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no device profile {path}: {advice}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is no device profile ({error}): {advice}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path} is no device profile of this version: {advice}")
    try:
        return CalibratedProfile.from_dict(data)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is a damaged device profile ({error}): {advice}") from error
