"""Predicted latency of an architecture as the sum over its parts: exact, and in a millisecond once the parts are known.

A Core ML program is its parts' programs one after the other, so what a profile charges for a part is found once and
holds for every decoder with that part at that place. A new part is first asked for less: its convolutions alone, seen
in PyTorch without data, give a bound that most decoders over a budget are over.
"""

from collections.abc import Callable, Iterator
from math import inf

from blocks import NotBuildableError
from nas.core_ml.part_reports import inspect_parts
from nas.core_ml.part_traces import Product, UntraceablePartError, trace_part
from nas.core_ml.parts import Part, decoder_parts
from nas.latency.prediction.calibrated_profile import CalibratedProfile
from nas.latency.prediction.core_ml_operations import operation_of
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

    def part_latency(self, stage: str, part: Part) -> dict[str, float]:
        """Milliseconds per frame of one part by setting of the compute units; raises what `predict` does."""
        self._find_out([(stage, part)])
        return {units: sum(charges) for units, charges in self._charges[part].items()}

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
        """A bound below `part_latency`, exact where it is known already; `NotBuildableError` as `at_least`."""
        if part in self._charges:
            return {units: sum(charges) for units, charges in self._charges[part].items()}
        if part not in self._bounds:
            self._bounds[part] = {units: sum(self._of_products(part, cost)) for units, cost in self._costs.items()}
        return self._bounds[part]

    def fits(self, config: DecoderConfig, limit: float) -> bool:
        """Whether a decoder is predicted to take at most `limit` milliseconds per frame.

        One that cannot be built or converted does not fit. `UnknownOperationError` as `predict`.
        """
        try:
            return self.at_least(config, limit) <= limit and self.predict(config).total <= limit
        except (NotBuildableError, MeasurementFailedError):
            return False

    def _of_products(self, part: Part, cost: Callable[[Operation], float]) -> Iterator[float]:
        try:
            products = trace_part(part).products
        except UntraceablePartError as error:
            raise NotBuildableError(f"{part.config.name}: {error}") from error
        for product in products:
            if product.kernel:
                yield cost(_as_operation(product)) / self.workload.num_frames

    def _find_out(self, parts: list[tuple[str, Part]]) -> None:
        """Convert the parts that are not known, together, and charge for each."""
        new = [(stage, part) for stage, part in parts if part not in self._charges]
        if not new:
            return
        reports = inspect_parts(part for _, part in new)
        for stage, part in new:
            if problem := reports[part].problem:
                raise MeasurementFailedError(f"{stage}: {part.config.name}: {problem}")
            operations = [operation_of(step, stage) for step in reports[part].steps]
            self._charges[part] = {
                units: tuple(cost(each) / self.workload.num_frames for each in operations)
                for units, cost in self._costs.items()
            }


def _as_operation(product: Product) -> Operation:
    channels_in = product.kernel[1]
    return Operation(
        name="conv",
        cost_class="depthwise_conv" if product.groups > 1 and channels_in == 1 else "conv",
        stage="",
        macs=product.macs,
        reads=product.reads,
        writes=(product.writes,),
        channels_in=channels_in,
        convolution=Convolution(product.writes[1], product.groups, product.kernel[2:], product.reads[0]),
    )
