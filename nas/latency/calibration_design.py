"""The decodes that a calibration measures: random small decoders of all spaces, at sizes that keep a decode short.

They are drawn from the search spaces for three geometries of latents, and more are drawn until every part of the spaces
is among them.
"""

import functools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from blocks import NotBuildableError
from nas.latency.devices import operations_on
from nas.latency.prediction.operations import Operation
from nas.latency.record import Runtime, Workload
from nas.terminal.errors import UserError
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec, SearchSpace, build_skeleton
from search_spaces.choices import RandomChooser

_LATENTS = (
    LatentSpec(channels=16, spatial=8, temporal=4),
    LatentSpec(channels=48, spatial=16, temporal=4),
    LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
)
"""Latents of Wan 2.1, HunyuanVideo and CogVideoX; of Wan 2.2; of LTX-Video."""

_SIZES = (64, 96, 128, 160)
_LATENT_FRAMES = (2, 3)
_TIMES_EACH_PART = 3
_LARGEST_PARAMETERS = 20e6

_MOST_DRAWS = 200
"""Random decoders that are looked at, one after the other, until there seems to be no other that is wanted."""


@dataclass(frozen=True)
class Program:
    """A decode to measure."""

    config: DecoderConfig
    """Architecture of the decoder."""
    workload: Workload
    """Size of the decode."""

    def build(self, *, weights: bool) -> Decoder:
        """The decoder, on the meta device if it needs no weights."""
        return Decoder(self.config) if weights else build_skeleton(self.config)


@functools.cache
def operations_of(program: Program, runtime: Runtime) -> tuple[Operation, ...]:
    """Everything that the decode executes."""
    decoder = program.build(weights=False)
    return tuple(operations_on(runtime, decoder, program.config.latents, program.workload))


def design_programs(
    count: int,
    held_out: int,
    seed: int,
    gmacs: tuple[float, float],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Program], list[Program]]:
    """Decodes to fit to and decodes to judge by; no architecture is in both.

    Args:
        count: decodes to fit to; more are added until every part of every space occurs three times among them.
        held_out: decodes to judge by.
        seed: random seed of the choice.
        gmacs: fewest and most multiply-accumulates of a decode, in billions.
        progress: is told how many of how many decodes are drawn.

    Raises:
        UserError: no decodes with so many multiply-accumulates can be drawn; names the nearest.
    """
    drawing = _Drawing(random.Random(seed), gmacs, progress or (lambda done, total: None), held_out + count)
    unseen = [drawing.draw() for _ in range(held_out)]
    fitted = [drawing.draw() for _ in range(count)]
    counts = Counter(part for program in fitted for part in _parts(program.config))
    wanted = {part for space in SEARCH_SPACES.values() for part in _parts_of_space(space)}
    useless = 0
    while missing := sorted(part for part in wanted if counts[part] < _TIMES_EACH_PART):
        program = drawing.draw()
        if set(missing) & _parts(program.config):
            useless = 0
            fitted.append(program)
            counts.update(_parts(program.config))
            continue
        useless += 1
        if useless == _MOST_DRAWS:
            raise UserError(
                f"none of {useless} random decoders within {_range(gmacs)} has the part {missing[0]}: "
                f"choose other --gmacs"
            )
    return fitted, unseen


class _Drawing:
    """Random decodes, none of which has the architecture of another one."""

    def __init__(
        self, generator: random.Random, gmacs: tuple[float, float], progress: Callable[[int, int], None], total: int
    ) -> None:
        self._generator = generator
        self._gmacs = gmacs
        self._progress = progress
        self._total = total
        self._seen: set[str] = set()
        self._nearest: float | None = None
        """Multiply-accumulates, in billions, of the decode that came nearest to the range without being in it."""

    def draw(self) -> Program:
        """The next one.

        Raises:
            UserError: there seems to be none with so many multiply-accumulates, or no further one.
        """
        for _ in range(_MOST_DRAWS):
            space, latents = self._generator.choice(list(SEARCH_SPACES.values())), self._generator.choice(_LATENTS)
            config = space.suggest(RandomChooser(self._generator), latents)
            workloads = [] if config.digest() in self._seen else self._workloads(config)
            if workloads:
                self._seen.add(config.digest())
                self._progress(min(len(self._seen), self._total), self._total)
                return Program(config, self._generator.choice(workloads))
        nearest = (
            "all were drawn before or too large" if self._nearest is None else f"the nearest has {self._nearest:.2g}"
        )
        raise UserError(
            f"none of {_MOST_DRAWS} random decoders is a new one with {_range(self._gmacs)} billion "
            f"multiply-accumulates per decode ({nearest}): choose other --gmacs or fewer decoders"
        )

    def _workloads(self, config: DecoderConfig) -> list[Workload]:
        """The decodes that are neither trivial nor long to run, by multiply-accumulates; none if it is large."""
        low, high = self._gmacs
        every = _gmacs_of_workloads(config)
        for gmacs in every.values():
            if self._nearest is None or _distance(gmacs, low, high) < _distance(self._nearest, low, high):
                self._nearest = gmacs
        return [workload for workload, gmacs in every.items() if low <= gmacs <= high]


def _gmacs_of_workloads(config: DecoderConfig) -> dict[Workload, float]:
    """The decodes at small sizes, with their multiply-accumulates in billions; none if the decoder is large."""
    latents = config.latents
    sizes = [size for size in _SIZES if size % latents.spatial == 0]
    frames = [latents.num_frames(count) for count in _LATENT_FRAMES]
    smallest = Program(config, Workload(sizes[0], sizes[0], frames[0]))
    try:
        skeleton = smallest.build(weights=False)
    except NotBuildableError:  # a part that is not there at this width; what is drawn next may be
        return {}
    if sum(each.numel() for each in skeleton.parameters()) > _LARGEST_PARAMETERS:
        return {}
    least = sum(operation.macs for operation in operations_of(smallest, "pytorch")) / 1e9 / (sizes[0] ** 2 * frames[0])
    every = (Workload(*grid) for grid in product(sizes, sizes, frames))
    return {load: least * load.height * load.width * load.num_frames for load in every}


def _distance(gmacs: float, low: float, high: float) -> float:
    """How far outside of a range a number is, as a factor; 1 inside."""
    return max(low / gmacs, gmacs / high, 1.0)


def _range(gmacs: tuple[float, float]) -> str:
    return f"{gmacs[0]:g} to {gmacs[1]:g}"


def _parts(config: DecoderConfig) -> set[str]:
    in_stages = (part for stage in config.stages for part in (stage.block, stage.upsampler))
    return {part.name for part in (config.stem, config.head, config.shortcut, *in_stages) if part is not None}


def _parts_of_space(space: SearchSpace) -> set[str]:
    blocks = {name for level in space.levels for name in level.blocks}
    ends = {*space.stems, *space.heads, *space.plain_heads}
    return {*ends, *space.middles, *space.upsamplers, *space.shortcuts, *blocks}
