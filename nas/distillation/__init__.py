"""Distillation: one training loop for students, its settings, and the error of a student that cannot be trained."""

from nas.distillation.distill import DistillResult, DivergedError, Progress, distill, score_student
from nas.distillation.settings import DistillSettings

__all__ = [
    "DistillResult",
    "DistillSettings",
    "DivergedError",
    "Progress",
    "distill",
    "score_student",
]
