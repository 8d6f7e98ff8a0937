"""The table of curves: every decoder of the sample, and how each of its distillations went. A small JSON file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.machine.files import read_json, write_json
from nas.machine.reading import understanding
from nas.terminal.errors import UserError

_FORMAT = 2


@dataclass(frozen=True)
class DecoderRow:
    """One decoder of the sample."""

    title: str
    """Name of the published design, or space and number of the random walk."""
    digest: str
    """Digest of the architecture."""
    summary: str
    """The architecture in one line."""
    band: int
    """Index of its latency band."""
    latency_ms: float
    """Predicted latency in milliseconds per frame."""
    parameters: int
    """Number of parameters."""
    step_gmacs: float
    """Multiply-accumulates of the forward pass of one training sample, in billions."""
    shortcut: bool
    """Whether it has a linear shortcut."""
    architecture: dict[str, Any]
    """The config, JSON primitives."""


@dataclass(frozen=True)
class Curve:
    """One distillation."""

    digest: str
    """Digest of the architecture."""
    seed: int
    """Seed of first weights and order of data."""
    steps: int
    """Length of the distillation: that of the table, or of a short one with a schedule of its own."""
    points: tuple[tuple[int, float], ...]
    """Steps done and score in dB on the score split, from before the first step to after the last."""
    test_db: float
    """PSNR in dB of the finished decoder against the teacher on the test split, which chose nothing."""
    seconds: float
    """Time that training took, in seconds."""
    failure: str = ""
    """Why it could not be trained to the end; empty if it could."""

    @property
    def final_db(self) -> float:
        """Score in dB after the last step."""
        return self.points[-1][1]


@dataclass(frozen=True)
class CurveTable:
    """Everything that the benchmark has found."""

    command: str
    """Command line that made the table."""
    machine: str
    """What the distillations ran on."""
    date: str
    """Day on which the table was finished, ISO 8601."""
    versions: dict[str, str]
    """Versions of what the numbers may depend on."""
    teacher: str
    """Name of the teacher."""
    targets: str
    """Key of the targets."""
    distillation: dict[str, Any]
    """Settings of the distillations, the seed aside."""
    bands: tuple[tuple[float, float], ...]
    """Latency bands in milliseconds per frame."""
    decoders: tuple[DecoderRow, ...]
    """The sample."""
    curves: tuple[Curve, ...]
    """All distillations."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, {"format": _FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "CurveTable":
        """Read what `save` wrote; UserError if there is no such table."""
        if not path.is_file():
            raise UserError(f"{path} does not exist: make a table with python -m nas.benchmark curves")
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise UserError(f"{path} is not a table of this version: make one with python -m nas.benchmark curves")
        values = {key: value for key, value in data.items() if key != "format"}
        with understanding(path, "make it again with python -m nas.benchmark curves"):
            return cls(
                **{
                    **values,
                    "bands": tuple((low, high) for low, high in values["bands"]),
                    "decoders": tuple(DecoderRow(**row) for row in values["decoders"]),
                    "curves": tuple(map(make_curve, values["curves"])),
                }
            )


def read_curve(path: Path) -> Curve:
    """A curve that was written as JSON; UserError if the file holds none."""
    with understanding(path, "delete it, it is made again"):
        return make_curve(read_json(path))


def make_curve(data: dict[str, Any]) -> Curve:
    """Inverse of `dataclasses.asdict`, through JSON."""
    return Curve(**{**data, "points": tuple((int(step), float(score)) for step, score in data["points"])})
