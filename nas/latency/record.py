"""A latency with its provenance: how it was found, on what, for which decode."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nas.latency.budget import format_ms
from nas.machine.records import read_fields

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
    error: float | None
    """Relative error: of a prediction the typical one on decoders that it was not fitted to, of a measurement the
    spread of its rounds; None if there was one."""
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
        record = read_fields(cls, data)
        if min(record.height, record.width, record.num_frames) < 1:
            raise ValueError(f"a size has to be at least 1, got {record.height}x{record.width}x{record.num_frames}")
        if record.error is not None and record.error < 0:
            raise ValueError(f"'error' has to be at least 0, got {record.error}")
        if not record.by_stage or min(record.by_stage.values()) < 0:
            raise ValueError("'by_stage' has to be milliseconds of at least one stage, none below 0")
        units = record.details.get("units")
        if units is not None and not (isinstance(units, dict) and units and all(map(_is_setting, units.values()))):
            raise ValueError("'units' has to be settings of the compute units, each with its device and median_ms")
        return record


class MeasurementFailedError(Exception):
    """A device could not run a decoder. A result, not a fault of the program: such a decoder does not ship."""


def _is_setting(value: object) -> bool:
    """Whether this is what was measured with one setting of the compute units, as far as it is read again."""
    statistics = value.get("statistics") if isinstance(value, dict) else None
    median = statistics.get("median_ms") if isinstance(statistics, dict) else None
    return (
        isinstance(value, dict)
        and isinstance(value.get("device"), str)
        and isinstance(median, (int, float))
        and not isinstance(median, bool)
        and 0 < median < math.inf
    )


def provenance(workload: Workload, kind: Kind, device: str, error: float | None) -> str:
    """ "at 512x512 x 17 frames, predicted for DEVICE (typical error N%)", or "..., measured on DEVICE (spread N%)"."""
    if kind == "predicted":
        suffix = "" if error is None else f" (typical error {error:.0%})"
        return f"at {workload.describe()}, predicted for {device}{suffix}"
    suffix = "" if error is None else f" (spread {error:.0%})"
    return f"at {workload.describe()}, measured on {device}{suffix}"
