"""The score as a sum over choices of stages: ridge regression on the decoders that were trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from nas.proposals.features import Floats
from search_spaces import DecoderConfig
from search_spaces.stage_groups import group_stages

_RIDGE = 1.0
"""Weight of the squared coefficients against the squared errors, both standardised."""


@dataclass(frozen=True)
class StageChoice:
    """What the program decides of the stages at one resolution."""

    width: int
    """Channels."""
    depth: int
    """Number of blocks."""
    block: str
    """The block with its options, as text."""
    upsampler: str
    """The upsampler with its options, as text; "" at the latents' resolution."""


def stage_choices(config: DecoderConfig) -> tuple[StageChoice, ...]:
    """The choices of a decoder, from the latents' resolution to the finest."""
    found = []
    for group in group_stages(config.stages):
        last = group[-1] if group[0].upsampler is not None else group[0]
        upsampler = next((str(stage.upsampler.to_dict()) for stage in group if stage.upsampler is not None), "")
        depth = sum(stage.depth for stage in group if stage.block == last.block)
        found.append(StageChoice(last.width, depth, str(last.block.to_dict()), upsampler))
    return tuple(found)


def terms_of(stage: int, choice: StageChoice) -> dict[str, dict[str, float]]:
    """What a stage adds to the score, by decision: names of coefficients and what they are multiplied by."""
    return {
        "width": {f"{stage} width": log2(choice.width), f"{stage} width={choice.width}": 1.0},
        "depth": {f"{stage} depth": log2(1 + choice.depth), f"{stage} depth={choice.depth}": 1.0},
        "block": {f"{stage} block={choice.block}": 1.0},
        "upsampler": {f"{stage} upsampler={choice.upsampler}": 1.0},
    }


class AdditiveScore:
    """Coefficients of all choices that were seen; what was not seen adds what its size says, and else nothing.

    Args:
        configs: decoders that were trained, at least two.
        scores: their scores in dB.
    """

    def __init__(self, configs: Sequence[DecoderConfig], scores: Sequence[float]) -> None:
        rows = [_row(config) for config in configs]
        self._names = sorted({name for row in rows for name in row})
        table = np.array([[row.get(name, 0.0) for name in self._names] for row in rows])
        self._centre, self._spread = table.mean(axis=0), table.std(axis=0)
        self._spread[self._spread < 1e-9] = np.inf
        standard = (table - self._centre) / self._spread
        targets = np.asarray(scores, dtype=np.float64)
        gram = standard.T @ standard + _RIDGE * np.eye(len(self._names))
        solved: Floats = np.linalg.solve(gram, standard.T @ (targets - targets.mean())) / self._spread
        self._coefficients: dict[str, float] = dict(zip(self._names, solved.tolist(), strict=True))
        self._constant = float(targets.mean() - sum(solved * self._centre))

    def gain(self, terms: dict[str, float]) -> float:
        """What terms of `terms_of` add, in dB."""
        return sum(self._coefficients.get(name, 0.0) * value for name, value in terms.items())

    def predict(self, config: DecoderConfig) -> float:
        """Score of a decoder in dB."""
        return self._constant + self.gain(_row(config))


def _row(config: DecoderConfig) -> dict[str, float]:
    row: dict[str, float] = {f"stages={len(group_stages(config.stages))}": 1.0, f"head={config.head.name}": 1.0}
    for stage, choice in enumerate(stage_choices(config)):
        for terms in terms_of(stage, choice).values():
            row |= terms
    return row
