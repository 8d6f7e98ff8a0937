"""Decoders that share all but the sizes and parts of their stages, as paths through a graph of parts.

A node is what a stage passes on: its index, width and layout. An edge is a choice (an upsampler from one width to
another, or blocks of one kind and number) with the latency of its parts and what it adds to the score. So both are sums
over the edges of a path, and every path is a decoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from blocks import NotBuildableError, get_block
from blocks.registry import Option
from nas.core_ml.parts import Part
from nas.latency.prediction.by_parts import LatencyByParts
from nas.proposals.additive_score import AdditiveScore, StageChoice, stage_choices, terms_of
from nas.proposals.choosers import Follower
from nas.proposals.proposer import Setting
from search_spaces import DecoderConfig
from search_spaces.stage_groups import group_stages

Node = tuple[Any, ...]
START: Node = ("start",)
END: Node = ("end",)


@dataclass(frozen=True)
class Edge:
    """One choice on the way through a decoder."""

    source: Node
    """Node that it comes from."""
    target: Node
    """Node that it leads to."""
    milliseconds: float
    """Latency per frame of its parts."""
    gain: float
    """What it adds to the score in dB."""
    decisions: tuple[tuple[str, str], ...] = ()
    """Names and values of what it decides."""
    params: dict[str, Option] = field(default_factory=dict, compare=False, hash=False)
    """The same as choices of the space."""


@dataclass(frozen=True)
class Options:
    """What the edges of one stage are made of."""

    widths: tuple[int, ...]
    """Channels."""
    depths: tuple[int, ...]
    """Numbers of blocks, at least 1 each."""
    blocks: tuple[dict[str, Option], ...]
    """Choices that set the block and its options."""
    upsamplers: tuple[dict[str, Option], ...]
    """Choices that set the upsampler and its options; one without any at the latents' resolution."""


class StageGraph:
    """All paths around one decoder, whose stem, middle, head, shortcut and layout in time they share.

    Widths are changed by the upsamplers.

    Args:
        setting: the space and the latents.
        base: choices of the decoder.
        options: choices for each resolution.
        score: what choices add to the score.
        by_parts: what parts cost; a bound where that is not known.
    """

    def __init__(
        self,
        setting: Setting,
        base: Mapping[str, Option],
        options: Sequence[Options],
        score: AdditiveScore,
        by_parts: LatencyByParts,
    ) -> None:
        self._setting = setting
        self._base = {name: "upsampler" if ".change" in name else value for name, value in base.items()}
        self._options = options
        self._score = score
        self._by_parts = by_parts
        self._reaching: dict[Node, dict[str, Option]] = {START: {}}

    def edges(self) -> list[Edge]:
        """Every edge; those whose parts cannot be built are left out."""
        found: list[Edge] = []
        entries: list[Node] = [START]
        for stage in range(len(self._options)):
            if stage:
                found += (steps := list(self._upsample(stage, entries)))
                entries = self._reach(steps)
            found += (steps := list(self._repeat(stage, entries)))
            entries = self._reach(steps)
        return found + list(map(self._end, entries))

    def config(self, params: Mapping[str, Option]) -> DecoderConfig:
        """The decoder of a path, by the choices of its edges."""
        changed = {name: "upsampler" for stage in range(1, len(self._options)) for name in _change_names(stage)}
        follower = Follower(self._base | changed | dict(params), _First())
        return self._setting.space.suggest(follower, self._setting.latents)

    def _reach(self, edges: Sequence[Edge]) -> list[Node]:
        self._reaching |= {edge.target: edge.params for edge in edges}
        return list(dict.fromkeys(edge.target for edge in edges))

    def _upsample(self, stage: int, entries: Sequence[Node]) -> Iterator[Edge]:
        options = self._options[stage]
        for entry, width, upsampler in product(entries, options.widths, options.upsamplers):
            params = _sized(stage, width) | upsampler
            found = self._parts(self._reaching[entry] | params, stage, "upsampler")
            if found is not None:
                choice, parts = found
                target = ("scaled", stage, width, parts[-1].outgoing)
                yield self._edge(stage, entry, target, choice, parts, ("upsampler",), params)

    def _repeat(self, stage: int, entries: Sequence[Node]) -> Iterator[Edge]:
        options = self._options[stage]
        for entry, block, depth in product(entries, options.blocks, options.depths):
            for width in options.widths if entry == START else (entry[2],):
                params = _sized(stage, width) | {f"stage{stage}.depth": depth} | block
                found = self._parts(self._reaching[entry] | params, stage, "block")
                if found is not None:
                    choice, parts = found
                    target = ("made", stage, width, parts[-1].outgoing)
                    yield self._edge(stage, entry, target, choice, parts, ("width", "depth", "block"), params)

    def _edge(
        self,
        stage: int,
        source: Node,
        target: Node,
        choice: StageChoice,
        parts: Sequence[Part],
        decides: tuple[str, ...],
        params: dict[str, Option],
    ) -> Edge:
        terms = terms_of(stage, choice)
        return Edge(
            source=source,
            target=target,
            milliseconds=self._cost(parts),
            gain=sum(self._score.gain(terms[name]) for name in decides),
            decisions=tuple((f"{stage} {name}", str(getattr(choice, name))) for name in decides),
            params=params,
        )

    def _end(self, node: Node) -> Edge:
        config = self.config(self._reaching[node])
        parts = [part for name, part in self._by_parts.parts(config) if name in ("head", "shortcut")]
        # The head sees what this node passes on, whatever the decoder at hand has there.
        head = replace(parts[0], in_channels=int(node[2]), incoming=node[3])
        return Edge(node, END, self._cost([head, *parts[1:]]), 0.0)

    def _parts(self, params: Mapping[str, Option], stage: int, role: str) -> tuple[StageChoice, list[Part]] | None:
        """A stage's choices and its parts of one role, all but upsamplers for the first stage, with the stem.

        None if they cannot be built, or if the space does not hold these choices.
        """
        config = self.config(params)
        groups = group_stages(config.stages)
        first = sum(map(len, groups[:stage]))
        names = {f"stage{index}" for index in range(first, first + len(groups[stage]))}
        parts = [
            part
            for name, part in self._by_parts.parts(config)
            if (name in names and get_block(part.config.name).role == role) or (name == "stem" and stage == 0)
        ]
        used = self._setting.space.params(config)
        offered = {name: value for name, value in params.items() if name in used}
        if any(used[name] != value for name, value in offered.items()):
            return None
        try:
            for part in parts:
                self._by_parts.part_bound(part)
        except NotBuildableError:
            return None
        return stage_choices(config)[stage], parts

    def _cost(self, parts: Sequence[Part]) -> float:
        return sum(min(self._by_parts.part_bound(part).values()) for part in parts)


class _First:
    """Takes the first of all choices."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """The first of `choices`."""
        return choices[0]


def _change_names(stage: int) -> tuple[str, str]:
    return f"stage{stage}.change", f"stage{stage}.change.shallow"


def _sized(stage: int, width: int) -> dict[str, Option]:
    """The width of a stage by every name that it may have: heads have names of their own for what fits them."""
    return {f"stage{stage}.width": width, **{f"stage{stage}.width.by{2**power}": width for power in range(8)}}
