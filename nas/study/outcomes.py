"""What became of the proposals of a study, and which of them are best."""

from dataclasses import dataclass
from typing import Literal

from nas.latency import LatencyRecord
from search_spaces import DecoderConfig

Kind = Literal["scored", "pruned", "failed", "over budget", "not exportable", "same"]
"""How a proposal ended. The first three were trained; "same" has the architecture of an earlier one."""
TRAINED: tuple[Kind, ...] = ("scored", "pruned", "failed")


@dataclass(frozen=True)
class Outcome:
    """What became of one proposal."""

    number: int
    config: DecoderConfig
    latency: LatencyRecord
    parameters: int
    kind: Kind
    """How it ended."""
    score: float | None = None
    """PSNR against the teacher in dB; for a pruned one the last that was reported."""
    detail: str = ""
    """Why it failed or cannot be exported; which one it equals."""
    preset: str = ""
    """Name of the published design that it is, if it is one."""


def best_outcomes(found: list[Outcome]) -> list[Outcome]:
    """Scored candidates, best first, each architecture once."""
    scored = [outcome for outcome in found if outcome.kind == "scored"]
    return sorted(scored, key=lambda outcome: (-(outcome.score or 0.0), outcome.latency.ms_per_frame))


def pareto_front(found: list[Outcome]) -> list[Outcome]:
    """Scored candidates that no other beats in both latency and score, fastest first."""
    front: list[Outcome] = []
    for outcome in sorted(best_outcomes(found), key=lambda each: (each.latency.ms_per_frame, -(each.score or 0.0))):
        if not front or (outcome.score or 0.0) > (front[-1].score or 0.0):
            front.append(outcome)
    return front
