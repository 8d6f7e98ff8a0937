"""Predicted latency of an architecture as the sum over its parts: exact, and in a millisecond once the parts are known.

A Core ML program is its parts' programs one after the other, so what a profile charges for a part is found once and
holds for every decoder with that part at that place. Of a new part its operations in PyTorch, seen without data, give
a bound that most decoders over a budget are over: nothing has to be converted to know that.
"""

from collections.abc import Iterable, Iterator
from math import inf

from blocks import NotBuildableError
from nas.core_ml.part_reports import inspect_parts, known_report
from nas.core_ml.part_traces import TracedOperation, UntraceablePartError, trace_part
from nas.core_ml.parts import Part, decoder_parts
from nas.core_ml.steps import Step
from nas.latency.prediction.calibrated_profile import CalibratedProfile
from nas.latency.prediction.core_ml_operations import operation_of
from nas.latency.prediction.cost_classes import COST_CLASS_OF, CostClass
from nas.latency.prediction.operations import Convolution, Operation
from nas.latency.prediction.predict import Prediction, costs_of, sum_by_stage
from nas.latency.prediction.profile import Profile
from nas.latency.record import MeasurementFailedError, Workload
from nas.terminal.errors import UserError
from search_spaces import DecoderConfig


class LatencyByParts:
    """Predictions of one profile for decodes of one size, which remember what each part costs.

    Args:
        profile: of a device that runs Core ML.
        workload: the decode.

    Raises:
        UserError: the device runs PyTorch, where what a part costs depends on what is before it.
    """

    def __init__(self, profile: Profile | CalibratedProfile, workload: Workload) -> None:
        if profile.runtime != "coreml":
            raise UserError(f"latency by parts is for devices that run Core ML, {profile.device} runs PyTorch")
        self.workload = workload
        self._costs = costs_of(profile)
        self._charges: dict[Part, dict[str, tuple[float, ...]]] = {}
        self._bounds: dict[Part, dict[str, float]] = {}

    def parts(self, config: DecoderConfig) -> list[tuple[str, Part]]:
        """Stage and part, in the order of execution; ValueError if the decode is not on the grid of the latents."""
        return decoder_parts(config, self.workload.num_frames, self.workload.height, self.workload.width)

    def predict(self, config: DecoderConfig) -> Prediction:
        """What `nas.latency.predict` gives for the operations of the decoder.

        Raises:
            NotBuildableError: a part cannot be built for its place.
            MeasurementFailedError: a part cannot be converted to Core ML.
            UnknownOperationError: the profile knows no cost of an operation.
        """
        parts = self.parts(config)
        self._find_out(parts)
        every = [
            sum_by_stage(((stage, charge) for stage, part in parts for charge in self._charges[part][units]), units)
            for units in self._costs
        ]
        return min(every, key=lambda prediction: prediction.total)

    def at_least(self, config: DecoderConfig, enough: float = inf) -> float:
        """A bound below `predict(config).total` for which nothing is converted.

        Args:
            config: the architecture.
            enough: where the bound exceeds this many milliseconds per frame no further part is looked at.

        Raises:
            NotBuildableError: a part cannot be built for its place, or does not run there.
        """
        totals = dict.fromkeys(self._costs, 0.0)
        # The last parts make most pixels, so a decoder over the budget shows there first.
        for _, part in reversed(self.parts(config)):
            for units, milliseconds in self.part_bound(part).items():
                totals[units] += milliseconds
            if min(totals.values()) > enough:
                break
        return min(totals.values())

    def part_bound(self, part: Part) -> dict[str, float]:
        """A bound below the milliseconds per frame of a part, by setting of the compute units; exact where known.

        `NotBuildableError` as `at_least`.
        """
        if part in self._charges:
            return {units: sum(charges) for units, charges in self._charges[part].items()}
        if part not in self._bounds:
            operations = list(_lower_operations(part))
            self._bounds[part] = {
                units: sum(cost(each) / self.workload.num_frames for each in operations)
                for units, cost in self._costs.items()
            }
        return self._bounds[part]

    def fits(self, config: DecoderConfig, limit: float) -> bool:
        """Whether a decoder is predicted to take at most `limit` milliseconds per frame.

        One that cannot be built or converted does not fit. New parts are converted a few at a time, those that weigh
        most first, until it shows. `UnknownOperationError` as `predict`.
        """
        # The bound adds up in another order, which may round up.
        enough = limit * (1 + 1e-9)
        try:
            if self.at_least(config, enough) > enough:
                return False
            for _, part in self.parts(config):
                self._recall(part)
            while self.at_least(config, enough) <= enough:
                unknown = [place for place in self.parts(config) if place[1] not in self._charges]
                if not unknown:
                    return self.predict(config).total <= limit
                self._find_out(self._heaviest(unknown))
            return False
        except (NotBuildableError, MeasurementFailedError):
            return False

    def _heaviest(self, places: list[tuple[str, Part]]) -> list[tuple[str, Part]]:
        """Those that weigh most, of different structures: others of a structure may follow from the first."""
        places = sorted(places, key=lambda place: max(self.part_bound(place[1]).values()), reverse=True)
        of_structure: dict[str, tuple[str, Part]] = {}
        for stage, part in places:
            of_structure.setdefault(trace_part(part).structure, (stage, part))
        return list(of_structure.values())[:_AT_ONCE]

    def _recall(self, part: Part) -> None:
        """Charge for a part if what it becomes is known without converting it."""
        report = None if part in self._charges else known_report(part)
        if report is not None and not report.problem:
            self._charge(part, report.steps)

    def _charge(self, part: Part, steps: Iterable[Step]) -> None:
        operations = [operation_of(step, part.config.name) for step in steps]
        self._charges[part] = {
            units: tuple(cost(each) / self.workload.num_frames for each in operations)
            for units, cost in self._costs.items()
        }

    def _find_out(self, parts: list[tuple[str, Part]]) -> None:
        """Convert the parts that are not known, together, and charge for each."""
        new = [(stage, part) for stage, part in parts if part not in self._charges]
        if not new:
            return
        reports = inspect_parts(part for _, part in new)
        for stage, part in new:
            if problem := reports[part].problem:
                raise MeasurementFailedError(f"{stage}: {part.config.name}: {problem}")
            self._charge(part, reports[part].steps)


_AT_ONCE = 4
"""Parts that are converted together: of one alone half of the time is the program's, of more than four little."""

_IN_EVERY_PROGRAM = ("conv", "elementwise", "reduction", "resize")
"""Cost classes of PyTorch's operations that have a counterpart in Core ML; copies may be left out there."""

_FOLDED = ("native_batch_norm", "_native_batch_norm_legit_no_training")
"""Operations that are folded into a convolution."""


def _lower_operations(part: Part) -> Iterator[Operation]:
    """Operations that a part's program has at least; `NotBuildableError` if the part does not run."""
    try:
        trace = trace_part(part)
    except UntraceablePartError as error:
        raise NotBuildableError(f"{part.config.name}: {error}") from error
    for each in trace.operations:
        name = each.name.rstrip("_")
        cost_class = COST_CLASS_OF.get(name)
        if cost_class in _IN_EVERY_PROGRAM and name not in _FOLDED and not each.constant:
            yield _lower_operation(each, cost_class)


def _lower_operation(traced: TracedOperation, cost_class: CostClass) -> Operation:
    if cost_class != "conv":
        return Operation(traced.name, cost_class, stage="", macs=0, reads=traced.reads, writes=traced.writes)
    kernel = traced.reads[1]
    channels_in, depthwise = kernel[1], traced.groups > 1 and kernel[1] == 1
    return Operation(
        name=traced.name,
        cost_class="depthwise_conv" if depthwise else "conv",
        stage="",
        macs=traced.macs,
        reads=traced.reads,
        writes=traced.writes,
        channels_in=channels_in,
        convolution=Convolution(traced.writes[0][1], traced.groups, kernel[2:], traced.reads[0]),
    )
