"""Everything that is known of a finished model, as one value: what finalize finds out and evaluation.json keeps."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from nas.evaluation.results import Evaluation
from nas.latency.record import LatencyRecord


@dataclass(frozen=True)
class TeacherRecord:
    """The teacher that a model was distilled from."""

    name: str
    """Registered name of the teacher."""
    source: str
    """Where its weights are from: hub id and revision, "embedded", or a path."""
    sha256: str
    """Hash of its weights and configuration."""
    licence: str
    """Licence of its weights."""
    repository: str
    """Repository of its published weights on the hub; empty where there is none."""
    channels: int
    """Channels of its latents."""


@dataclass(frozen=True)
class PackageRecord:
    """A Core ML package of a model."""

    summary: str
    """What it is and what was proven of it, in one line."""
    report: dict[str, Any]
    """The whole report of its export, JSON primitives."""


@dataclass(frozen=True)
class ModelRecord:
    """A finished model: what it is, what it was made from, how good and how fast it is."""

    teacher: TeacherRecord
    """The teacher whose latents it decodes."""
    architecture: str
    """Digest of the decoder's config."""
    summary: str
    """The architecture in one line."""
    temporal_mode: str
    """Whether it is "causal" or "bidirectional"."""
    parameters: int
    """Number of parameters of the decoder."""
    macs_per_frame: float
    """Multiply-accumulates of the timed decode per decoded frame."""
    budget: str
    """What the search allowed, and for which decode."""
    device: str
    """Device that the budget was for."""
    latency_measured: LatencyRecord
    """Latency as it was measured by finalize."""
    latency_predicted: LatencyRecord
    """Latency as it is predicted for a phone."""
    distillation: dict[str, Any]
    """What its weights depend on but its architecture: the recipe, settings and targets of every phase, and of latents
    that were trained on without a video, if there were any, their number and digest."""
    unseen: str
    """Key of the targets that it was judged on."""
    clips: str
    """Where the clips are from, in words."""
    search_score_db: float | None
    """Score in dB that it had in the search."""
    curve: tuple[tuple[int, float], ...]
    """Steps done and score in dB on the way through the full distillation."""
    evaluation: Evaluation
    """The model on clips that neither training nor selection saw."""
    teacher_evaluation: Evaluation
    """The teacher on the same clips."""
    versions: dict[str, str]
    """Versions of what the numbers may depend on."""
    packages: dict[str, PackageRecord]
    """Core ML packages by their file names."""
    no_package: str = ""
    """Why there is no Core ML package; empty if there is one."""
    weights_sha256: str = ""
    """SHA-256 of the file of its weights; empty until it is written."""

    def is_made_from(self, distillation: dict[str, Any], unseen: str) -> bool:
        """Whether making it again like this would give the same model and the same numbers."""
        return (self.distillation, self.unseen) == (distillation, unseen)

    @property
    def distilled_for(self) -> str:
        """Steps, and what it was trained on, for people."""
        latents = self.distillation.get("latents")
        given = "" if latents is None else f" and {latents['count']} latents given without a video"
        return f"{self.distillation['steps']} steps on {self.clips}{given}"

    def with_package(self, name: str, package: PackageRecord) -> "ModelRecord":
        """The same with one more package, or with another one of that name."""
        return replace(self, packages={**self.packages, name: package}, no_package="")

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        plain = asdict(self) | {"evaluation": self.evaluation.to_dict(), "curve": [list(each) for each in self.curve]}
        del plain["packages"], plain["no_package"]
        packages = {name: {"summary": each.summary, **each.report} for name, each in self.packages.items()}
        return plain | {"core_ml": {"error": self.no_package} if self.no_package else {"packages": packages}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ModelRecord":
        """Inverse of `to_dict`.

        Raises:
            KeyError, TypeError: the data is not that of a record of this version.
        """
        plain = dict(data)
        core_ml = plain.pop("core_ml")
        packages = {
            name: PackageRecord(each["summary"], {key: each[key] for key in each if key != "summary"})
            for name, each in core_ml.get("packages", {}).items()
        }
        values = plain | {
            "teacher": TeacherRecord(**plain["teacher"]),
            "latency_measured": LatencyRecord.from_dict(plain["latency_measured"]),
            "latency_predicted": LatencyRecord.from_dict(plain["latency_predicted"]),
            "curve": tuple((int(step), float(score)) for step, score in plain["curve"]),
            "evaluation": Evaluation.from_dict(plain["evaluation"]),
            "teacher_evaluation": Evaluation.from_dict(plain["teacher_evaluation"]),
        }
        return cls(**values, packages=packages, no_package=core_ml.get("error", ""))
