"""A candidate: one proposed decoder, built once, and everything that is known of it before its outcome."""

from collections.abc import Callable
from typing import Protocol

from nas.study.costs import Costs
from nas.workers.job import Segment
from search_spaces import DecoderConfig


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

    def work(self, until: int) -> Callable[[], Segment]:
        """What trains it, from where it was stopped before, up to a step, wherever it is called."""

    def record(self, number: int, segment: Segment) -> None:
        """Keep what is known of its training, as the trial with this number; told after every job."""

    def forget(self) -> None:
        """It will not be trained any further: remove what only that would need."""


MakeCandidate = Callable[[DecoderConfig], Candidate]
