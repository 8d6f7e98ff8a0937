"""A model record that nothing had to be trained for."""

from typing import Any

from nas.evaluation.results import ClipEvaluation, Evaluation, Quality
from nas.latency import LatencyRecord
from nas.latency.record import Kind
from nas.model.record import ModelRecord, TeacherRecord


def latency(milliseconds: float, kind: Kind = "predicted") -> LatencyRecord:
    """So many milliseconds per frame on "a phone"."""
    by_stage = {"stem": milliseconds / 2, "head": milliseconds / 2}
    return LatencyRecord(milliseconds, kind, "a phone", "some way", 512, 512, 17, "float16", 0.2, by_stage)


def quality(psnr: float) -> Quality:
    """So many dB, and about as much of everything else."""
    return Quality(psnr, psnr - 1, psnr + 1, 0.91234, 0.9, 0.92, None)


def evaluation(psnr: float | None) -> Evaluation:
    """Of two clips; without a PSNR against the teacher it is the teacher's own."""
    to_teacher = None if psnr is None else quality(psnr)
    clips = tuple(ClipEvaluation(name, 2, to_teacher, quality(27.5)) for name in ("a.mp4", "b.mp4"))
    return Evaluation("test", "key", to_teacher, quality(27.5), clips, "LPIPS off: no weights")


def make_record(**changes: Any) -> ModelRecord:
    """A record in which everything is there; `changes` replace fields."""
    teacher = TeacherRecord("wan", "owner/name@1234567", "ab" * 32, "Apache-2.0", "owner/name", 16)
    fields: dict[str, Any] = {
        "teacher": teacher,
        "architecture": "0123456789ab",
        "summary": "dw3d 16x1 > ps8",
        "temporal_mode": "causal",
        "parameters": 22732,
        "macs_per_frame": 1.25e9,
        "budget": "30ms per frame at 512x512 x 17 frames",
        "device": "a phone",
        "latency_measured": latency(100.0, "measured"),
        "latency_predicted": latency(20.0),
        "distillation": {"recipe": "fast", "steps": 4, "phases": [{"name": "frames", "steps": 4, "seed": 0}]},
        "unseen": "judged on",
        "clips": "clips of {mine}/",
        "search_score_db": 25.0,
        "curve": ((2, 24.5), (4, 26.25)),
        "evaluation": evaluation(31.25),
        "teacher_evaluation": evaluation(None),
        "versions": {"torch": "2"},
        "packages": {},
    }
    return ModelRecord(**{**fields, **changes})
