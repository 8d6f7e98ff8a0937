"""Proof that a converted program computes what the PyTorch module does, and where it goes wrong if it does not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import log10
from typing import Any

import torch
from torch import Tensor

from nas.core_ml.interpreter import interpret, walk
from nas.core_ml.program import Operation, Program

_BEST, _WORST = 100.0, -100.0
"""dB where nothing differs, and where infinities come out: finite, so that JSON and a mean take them."""
_JUMP = 10.0
"""Loss in dB between the inputs and the result of an operation from which its error counts as a jump."""


@dataclass(frozen=True)
class Jump:
    """An operation whose result is much less precise than its inputs."""

    operation: str
    """Name of the operation in the program."""
    op_type: str
    """Core ML's name of the operation's type."""
    stage: str
    """Stage of the decoder that the operation belongs to; "" where that is unknown."""
    before: float
    """Signal to rounding error of the least precise input, dB."""
    after: float
    """Signal to rounding error of the result, dB."""

    def describe(self) -> str:
        """ "conv 'x' in stage0: 60 dB in, 20 dB out"."""
        where = f" in {self.stage}" if self.stage else ""
        result = "infinity or not a number" if self.after == _WORST else f"{self.after:.0f} dB"
        return f"{self.op_type} '{self.operation}'{where}: {self.before:.0f} dB in, {result} out"


@dataclass(frozen=True)
class Proof:
    """A program's outputs against PyTorch's in float32."""

    psnr_exact: float
    """PSNR in dB with the program computed in float32: what the conversion and the precision of the weights cost."""
    psnr_rounded: float
    """PSNR in dB with every result rounded to the type that it has in the program: what a device gives. The lowest, if
    there were several inputs."""
    max_error_exact: float
    """Largest absolute difference of the output that `psnr_exact` is from, computed in float32."""
    jump: Jump | None
    """The first operation whose error jumps; if none does, the one that loses most. None if nothing is rounded."""
    psnr_draws: tuple[float, ...]
    """PSNR in dB as a device rounds, for each of the inputs that were tried."""

    def describe(self) -> str:
        """ "62.1 dB as a device rounds (worst of 3 inputs, best 63.0), 98.4 dB computed in float32"."""
        count, best = len(self.psnr_draws), max(self.psnr_draws)
        several = f" (worst of {count} inputs, best {best:.1f})" if count > 1 else ""
        return f"{self.psnr_rounded:.1f} dB as a device rounds{several}, {self.psnr_exact:.1f} dB computed in float32"

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return asdict(self) | {"psnr_draws": list(self.psnr_draws)}


def prove(
    program: Program, inputs: Mapping[str, Tensor], reference: Mapping[str, Tensor], frames: str = "frames"
) -> Proof:
    """Compute a program twice, in float32 and rounded, and compare all its outputs with PyTorch's.

    PSNR is that of the worst output. Frames have a value range of 2.0; all others are features, whose range is twice
    their largest value.

    Args:
        program: what was converted.
        inputs: of the program by name.
        reference: what the PyTorch module gives for them in float32, by the program's output names.
        frames: name of the output that is a video in [-1, 1].
    """
    names = {value.name for value in program.outputs}
    if names != reference.keys():
        raise ValueError(f"the program gives {sorted(names)}, expected {sorted(reference)}")
    origin = {result.name: operation for operation in program.operations for result in operation.results}
    precision: dict[str, float] = {}
    jumps: list[Jump] = []
    exact: list[tuple[float, float]] = []
    rounded: list[float] = []
    steps = zip(walk(program, inputs, rounded=False), walk(program, inputs, rounded=True), strict=True)
    for (value, precise), (_, device) in steps:
        precision[value.name] = _signal_to_error(precise, device)
        if value.name in origin:
            jumps.append(_jump(origin[value.name], value.name, precision))
        if value.name in names:
            wanted = reference[value.name]
            value_range = _value_range(value.name, wanted, frames)
            exact.append((_psnr(precise, wanted, value_range), (precise - wanted).abs().max().item()))
            rounded.append(_psnr(device, wanted, value_range))
    return Proof(
        psnr_exact=min(decibels for decibels, _ in exact),
        psnr_rounded=min(rounded),
        max_error_exact=min(exact)[1],
        jump=_first_jump(jumps),
        psnr_draws=(min(rounded),),
    )


def prove_all(program: Program, draws: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]) -> Proof:
    """As `prove`, for several pairs of inputs and reference; the lowest PSNR as a device rounds counts.

    Only the first is computed in float32, too; each further one takes about half as long.
    """
    proof = prove(program, *draws[0])
    rounded = (proof.psnr_rounded, *(_rounded_psnr(program, *draw) for draw in draws[1:]))
    return replace(proof, psnr_rounded=min(rounded), psnr_draws=rounded)


def _rounded_psnr(program: Program, inputs: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    found = interpret(program, inputs, rounded=True)
    return min(_psnr(found[name], wanted, _value_range(name, wanted)) for name, wanted in reference.items())


def _value_range(name: str, reference: Tensor, frames: str = "frames") -> float:
    return 2.0 if name == frames else 2.0 * reference.abs().max().item()


def _jump(operation: Operation, result: str, precision: Mapping[str, float]) -> Jump:
    before = [precision[value.name] for value in operation.values() if value.name in precision]
    return Jump(result, operation.op_type, operation.stage, min(before, default=_BEST), precision[result])


def _first_jump(jumps: list[Jump]) -> Jump | None:
    jumping = [jump for jump in jumps if jump.before - jump.after >= _JUMP]
    if jumping:
        return jumping[0]
    worst = max(jumps, key=lambda jump: jump.before - jump.after, default=None)
    return worst if worst is not None and worst.before > worst.after else None


def _signal_to_error(signal: Tensor, approximation: Tensor) -> float:
    if not signal.is_floating_point():
        return _BEST if torch.equal(signal, approximation) else _WORST
    return _decibels(signal.square().mean().item(), (signal - approximation).square().mean().item())


def _psnr(prediction: Tensor, target: Tensor, value_range: float) -> float:
    return _decibels(value_range**2, (prediction - target).square().mean().item())


def _decibels(signal: float, error: float) -> float:
    if error == 0:
        return _BEST
    # Neither holds for an error that is not a number.
    if not (0 < signal < float("inf") and error < float("inf")):
        return _WORST
    return max(_WORST, min(_BEST, 10 * log10(signal / error)))
