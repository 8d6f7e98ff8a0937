"""A candidate: one proposed decoder, built once, and everything that is known of it before its outcome."""

from collections.abc import Callable
from typing import Protocol

from nas.study.costs import Costs
from search_spaces import DecoderConfig

Report = Callable[[int, float], None]
"""`report(step, score in dB)` on the way through a short distillation; may raise `optuna.TrialPruned`."""


class Candidate(Protocol):
    """What a study asks about a proposed decoder. Each answer is found out when it is asked for, and only once."""

    @property
    def config(self) -> DecoderConfig:
        """The architecture."""

    @property
    def costs(self) -> Costs:
        """Every number that a constraint may be about: at least those that the constraints of the study are about.

        Raises:
            MeasurementFailedError: a device cannot run the decoder.
            blocks.NotBuildableError: a part cannot be built for its place.
        """

    @property
    def problem(self) -> str:
        """Why the decoder cannot be exported; empty if it can."""

    def train(self, number: int, report: Report) -> float:
        """PSNR in dB against the teacher after a short distillation.

        Args:
            number: number of the trial.
            report: called with every score on the way.

        Raises:
            nas.distillation.distill.DivergedError: it cannot be trained.
        """


MakeCandidate = Callable[[DecoderConfig], Candidate]
