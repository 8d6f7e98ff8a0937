"""A latency with its provenance: how it was found, on what, for which decode."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nas.latency.budget import format_ms

Kind = Literal["measured", "predicted"]
"""Whether a latency was measured by a clock or predicted by a model."""

Runtime = Literal["pytorch", "coreml"]
"""What executes a decoder: PyTorch or Core ML."""


@dataclass(frozen=True)
class Workload:
    """The decode that is timed: one clip, batch 1."""

    height: int
    """Frame height in pixels."""
    width: int
    """Frame width in pixels."""
    num_frames: int
    """Number of frames that are decoded."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{each.name} must be a whole number of at least 1, got {value!r}")

    def describe(self) -> str:
        """ "512x512 x 17 frames" (height first)."""
        return f"{self.height}x{self.width} x {self.num_frames} frames"

    def to_dict(self) -> dict[str, int]:
        """JSON primitives, by the names of the fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class LatencyRecord:
    """Milliseconds per decoded frame, and where they come from."""

    ms_per_frame: float
    """Milliseconds of the whole decode divided by its frames."""
    kind: Kind
    """Whether the latency was measured or predicted."""
    device: str
    """Device that the latency holds for: the name of a profile, or the machine that measured."""
    method: str
    """How the latency was found, in one phrase."""
    height: int
    """Frame height in pixels."""
    width: int
    """Frame width in pixels."""
    num_frames: int
    """Number of frames that are decoded."""
    dtype: str
    """Precision that the decoder computes in: float16 or float32."""
    error: float
    """Relative error: of a prediction the typical one on decoders that it was not fitted to, of a measurement the
    spread of its rounds."""
    by_stage: dict[str, float]
    """Milliseconds per frame of each stage, in the order of execution; they add up to `ms_per_frame`."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else the device reported, JSON primitives: compute units, rounds, operating system."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got '{self.kind}'")
        if not 0 < self.ms_per_frame < math.inf:
            raise ValueError(f"a latency must be positive and finite, got {self.ms_per_frame} ms per frame")

    @property
    def workload(self) -> Workload:
        """The decode that was measured or predicted."""
        return Workload(self.height, self.width, self.num_frames)

    def describe(self) -> str:
        """ "21.7 ms per frame at 512x512 x 17 frames, predicted for DEVICE (typical error N%)"."""
        where = provenance(self.workload, self.kind, self.device, self.error)
        return f"{format_ms(self.ms_per_frame)} ms per frame {where}"

    def dominant_stage(self) -> str:
        """Name of the stage that takes longest."""
        return max(self.by_stage, key=self.by_stage.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LatencyRecord":
        """Inverse of `to_dict`, of data that may be anything.

        Raises:
            ValueError: a key is missing, unknown, or has a value of another type or range; the message says which.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a latency record is an object, got {type(data).__name__}")
        required, known = _CHECKS.keys() - {"details"}, _CHECKS.keys()
        for what, keys in (("lacks", required - data.keys()), ("has an unknown", data.keys() - known)):
            if keys:
                raise ValueError(f"a latency record {what} '{min(map(str, keys))}'")
        for name, value in data.items():
            expected, is_valid = _CHECKS[name]
            if not is_valid(value):
                raise ValueError(f"{name} of a latency record must be {expected}, got {repr(value)[:40]}")
        return cls(**{**data, "by_stage": dict(data["by_stage"])})


class MeasurementFailedError(Exception):
    """A device could not run a decoder. A result, not a fault of the program: such a decoder does not ship."""


def is_number(value: object) -> bool:
    """Whether a value read from JSON is a finite number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # An integer may be too large to be a float.
    return -1e300 < value < 1e300


def _is_positive(value: Any) -> bool:
    return is_number(value) and bool(value > 0)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_stages(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and is_number(ms) and ms >= 0 for name, ms in value.items())
    )


def _are_details(value: object) -> bool:
    """Whether these are details; those of a device with settings of its compute units are read by `calibrate`."""
    if not isinstance(value, dict):
        return False
    units = value.get("units", {"": {"device": "any", "statistics": {"median_ms": 1.0}}})
    return isinstance(units, dict) and len(units) > 0 and all(map(_is_setting, units.values()))


def _is_setting(value: object) -> bool:
    statistics = value.get("statistics") if isinstance(value, dict) else None
    median = statistics.get("median_ms") if isinstance(statistics, dict) else None
    return isinstance(value, dict) and _is_text(value.get("device")) and _is_positive(median)


_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "ms_per_frame": ("a positive, finite number", _is_positive),
    "kind": (f"one of {', '.join(get_args(Kind))}", lambda value: value in get_args(Kind)),
    "device": ("a text", _is_text),
    "method": ("a text", _is_text),
    "height": ("a whole number of at least 1", _is_size),
    "width": ("a whole number of at least 1", _is_size),
    "num_frames": ("a whole number of at least 1", _is_size),
    "dtype": ("a text", _is_text),
    "error": ("a finite number of at least 0", lambda value: is_number(value) and value >= 0),
    "by_stage": ("milliseconds by stage", _are_stages),
    "details": ("an object, its units with device and statistics", _are_details),
}
"""Field of a record -> what is expected of it, and whether a value read from JSON is that."""


def provenance(workload: Workload, kind: Kind, device: str, error: float | None) -> str:
    """ "at 512x512 x 17 frames, predicted for DEVICE (typical error N%)", or "..., measured on DEVICE (spread N%)"."""
    if kind == "predicted":
        suffix = "" if error is None else f" (typical error {error:.0%})"
        return f"at {workload.describe()}, predicted for {device}{suffix}"
    suffix = "" if error is None else f" (spread {error:.0%})"
    return f"at {workload.describe()}, measured on {device}{suffix}"
