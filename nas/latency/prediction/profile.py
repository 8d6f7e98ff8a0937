"""A device's profile: what its operations cost, what that was fitted to, and how far off it is on unseen decoders."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from math import ceil, prod
from typing import Any, ClassVar

from nas.latency.prediction.operations import BYTES_PER_ELEMENT
from nas.latency.prediction.typed_json import from_primitives
from nas.latency.record import Runtime
from nas.terminal.errors import unknown_name

TERMS = ("gmacs", "off_chip_mb")
"""Names of the terms that an operation is charged for; `Machine` says how they are counted."""


@dataclass(frozen=True)
class Machine:
    """How the terms are counted on a device: assumptions, not fitted."""

    channel_lanes: int
    """Input channels of a dense convolution count as the next multiple of this: narrow layers leave lanes idle."""
    depthwise_factor: float
    """Multiply-accumulates of a dense convolution that take as long as one of a depthwise convolution."""
    on_chip_mb: float
    """On-chip memory in MB. Inputs and outputs of one operation are charged for what exceeds it, each on its own."""
    row_elements: int
    """The last axis of every tensor counts as the next multiple of this: rows begin at aligned addresses."""

    def __post_init__(self) -> None:
        if min(self.channel_lanes, self.row_elements) < 1 or self.depthwise_factor <= 0 or self.on_chip_mb < 0:
            raise ValueError(f"lanes, rows and factors are above 0 and memory at least 0: {self}")

    def lane_factor(self, channels_in: int) -> float:
        """Multiply-accumulates that are computed for each one of a dense convolution."""
        return ceil(channels_in / self.channel_lanes) * self.channel_lanes / channels_in

    def megabytes(self, shapes: Iterable[tuple[int, ...]]) -> float:
        """What tensors of these shapes take as float16, their rows filled up."""
        row = self.row_elements
        filled = (prod(shape[:-1]) * ceil(shape[-1] / row) * row for shape in shapes if shape)
        return BYTES_PER_ELEMENT * sum(filled) / 1e6


APPLE = Machine(channel_lanes=64, depthwise_factor=16, on_chip_mb=24, row_elements=32)
"""Assumed of Apple's phones: 24 MB are the system-level cache of the A18 Pro; the Neural Engine fills up the last axis
of a tensor to 64 bytes ("Deploying Transformers on the Apple Neural Engine", Apple, 2022)."""


@dataclass(frozen=True)
class Point:
    """One published measurement and what the model says about it."""

    decoder: str
    """A preset of `search_spaces`, or the diffusers class in words."""
    height: int
    """Frame height in pixels, as published."""
    width: int
    """Frame width in pixels, as published."""
    num_frames: int
    """Number of frames per decode; assumed to be 17, the length of clips in the publication, or 16 where 17 do not fit
    the latents."""
    published_fps: float
    """Decoded frames per second, as published."""
    fitted_ms: float
    """Milliseconds per frame that the profile predicts."""
    held_out_ms: float
    """Milliseconds per frame that the same model predicts when it is fitted to all other points."""
    source: str
    """Publication that the frame rate is from."""

    def __post_init__(self) -> None:
        if self.published_fps <= 0:
            raise ValueError(f"published_fps must be above 0, got {self.published_fps}")

    @property
    def published_ms(self) -> float:
        """Milliseconds per frame, as published."""
        return 1000 / self.published_fps

    @property
    def held_out_error(self) -> float:
        """Signed relative error of `held_out_ms`: negative if it is too fast."""
        return self.held_out_ms / self.published_ms - 1


@dataclass(frozen=True)
class Profile:
    """Everything that a prediction for a device needs, and what is known about its quality."""

    device: str
    """Name that the device is opened by."""
    measured_with: str
    """What executed the decoders that were measured, in words."""
    machine: Machine
    """How the terms are counted on the device."""
    coefficients: dict[str, float]
    """Milliseconds per unit of each of `TERMS`."""
    points: tuple[Point, ...]
    """Published measurements that the coefficients were fitted to."""
    typical_error: float
    """Mean absolute relative error on a point that was left out, the model being chosen without it too."""
    model: str
    """Name of the model that was chosen, one of `tried`."""
    tried: dict[str, float]
    """Mean absolute relative leave-one-out error of each model that was tried."""
    notes: str
    """Assumptions, and what the data does not settle."""
    fitted_on: str
    """Date of the fit, ISO 8601."""
    tool_version: str
    """Version of this package that made the profile."""

    def __post_init__(self) -> None:
        if tuple(self.coefficients) != TERMS or any(value < 0 for value in self.coefficients.values()):
            raise ValueError(f"a profile needs coefficients of at least 0 for {', '.join(TERMS)}: {self.coefficients}")

    dtype: ClassVar[str] = "float16"
    """Precision that the profile predicts for: the one that phones compute in."""
    runtime: ClassVar[Runtime] = "coreml"
    """What executes decoders on such devices."""

    @property
    def basis(self) -> str:
        """What the coefficients were fitted to, in words."""
        return f"{len(self.points)} published frame rates"

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        return {**dataclasses.asdict(self), "points": [dataclasses.asdict(point) for point in self.points]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Profile":
        """Inverse of `to_dict`; ValueError if something is missing, unknown or of another type."""
        return from_primitives(cls, data)


def list_profiles() -> list[str]:
    """Names of the devices that latency can be predicted for."""
    files = (resources.files("nas.latency.prediction") / "profiles").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def load_profile(name: str) -> Profile:
    """The profile of a device; `nas.terminal.errors.UserError` with the nearest name if there is none."""
    if name not in list_profiles():
        raise unknown_name("device", name, list_profiles())
    text = (resources.files("nas.latency.prediction") / "profiles" / f"{name}.json").read_text(encoding="utf-8")
    return Profile.from_dict(json.loads(text))
