"""Checks of what a part computes with: gradients, weights, half precision, costs, conversions."""

import copy
import dataclasses
from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from blocks import Shortcut
from blocks.rewrites import merge_branches
from blocks.time_context import to_frames
from nas.core_ml.convert import export_program, to_core_ml
from nas.latency.prediction.operations import list_operations
from nas.testing.block_parts import InTime, Part
from nas.testing.checking import in_every_geometry, in_one_geometry
from nas.testing.count_macs import count_macs
from search_spaces.decoder import silence

_HALF_INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "all zeros": torch.zeros_like,
    "values below 1": lambda x: x,
    "values of 1e-4": lambda x: 1e-4 * x,
    "all 300": lambda x: torch.full_like(x, 300.0),
    "values up to 300": lambda x: 300 * x,
}
"""Squares of the last two overflow float16, squares of the third vanish in it."""


@in_every_geometry
def check_gradient(part: Part) -> None:
    """Every parameter learns, and nothing is infinite in the gradient even for an input of zeros."""
    for x in (part.input(), torch.zeros_like(part.input())):
        part.block.zero_grad()
        out = part.run(x.requires_grad_(), drop_leading=bool(part.leading))
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        (out * weights).sum().backward()  # type: ignore[no-untyped-call]
        part.expect(x.grad is not None and bool(x.grad.isfinite().all()), "the gradient of its input is not finite")
        for name, parameter in part.block.named_parameters():
            part.expect(parameter.grad is not None, f"parameter {name} is not used: it gets no gradient")
            assert parameter.grad is not None
            part.expect(isfinite(parameter.grad.abs().sum().item()), f"the gradient of {name} is not finite")
            learns = bool(parameter.grad.any()) or not x.any()
            part.expect(learns, f"the gradient of {name} is zero everywhere")


@in_every_geometry
@torch.no_grad()
def check_fit(part: Part) -> None:
    """A shortcut finds the weights of another one from what that one makes of some latents."""
    if not isinstance(part.block, Shortcut):
        return
    for drop in (False, True):
        x = part.input(3, 8, 8, batch=4)
        wanted = part.run(x, drop_leading=drop)
        other = copy.deepcopy(part)
        for parameter in other.block.parameters():
            parameter.zero_()
        assert isinstance(other.block, Shortcut)
        other.block.fit([(x, wanted)], drops_leading=drop)
        error = (other.run(x, drop_leading=drop) - wanted).abs().max().item()
        part.expect(error < 1e-2, f"fitted to its own frames it gives others (differ by {error:.2g})")


@in_every_geometry
@torch.no_grad()
def check_silence(part: Part) -> None:
    """A head whose last convolution is zero gives black frames: with a shortcut, a decoder begins so."""
    if part.block.role != "head":
        return
    silence(part.block)
    part.expect(not part.run(part.input()).any(), "is not silent with its last convolution at zero")


@in_every_geometry
@torch.no_grad()
def check_half_precision(part: Part) -> None:
    """Finite in bfloat16 and float16, for zeros and for values whose squares overflow; the dtype is kept."""
    for dtype in (torch.bfloat16, torch.float16):
        half = dataclasses.replace(part, block=part.block.to(dtype))
        for what, make in _HALF_INPUTS.items():
            out = half.run(make(part.input()).to(dtype))
            part.expect(out.dtype == dtype, f"gives {out.dtype} for {dtype}")
            part.expect(bool(out.isfinite().all()), f"not finite in {dtype} for {what}")


@in_every_geometry
@torch.no_grad()
def check_macs(part: Part) -> None:
    """fvcore and our own list count the same multiply-accumulates, and every weight takes part."""
    layout = part.block.input_layout
    block = InTime(part.block).eval()
    totals = []
    for x in (part.input(), part.input(2, 1, 1), part.input(1, 1, 1)):
        x = x if layout == "video" else to_frames(x)
        counted, unknown = count_macs(block, x)
        part.expect(not unknown, f"the cost of {sorted(unknown)} is not counted")
        listed = sum(operation.macs for operation in list_operations(block, x.shape))
        part.expect(listed == counted, f"list_operations counts {listed} MACs, fvcore {counted}")
        totals.append(counted)
    # At one position every weight is used once or more, if not for the first frame (which some parts leave as it is)
    # then for the second; a vector may be a bias or a scale.
    _, two, one = totals
    counted = max(one, two - one)
    merge_branches(part.block, "causal")
    weights = sum(p.numel() for p in part.block.parameters() if sum(size > 1 for size in p.shape) > 1)
    part.expect(counted >= weights, f"{counted} MACs at one position are counted, but it has {weights} weights")


@in_one_geometry
@torch.no_grad()
def check_export(part: Part) -> None:
    """torch.export takes it (no control flow that depends on data), and the program gives what the block gives."""
    x = part.input() if part.block.input_layout == "video" else to_frames(part.input())
    for mode in ("causal", "bidirectional"):
        module = InTime(part.block, mode).eval()
        program: Any = export_program(module, (x,)).module()
        part.expect_equal(program(x), module(x), f"the exported {mode} program gives something else")


@in_one_geometry
def check_core_ml(part: Part) -> None:
    """coremltools converts it, to a program without a tensor of more than 5 axes."""
    x = part.input() if part.block.input_layout == "video" else to_frames(part.input())
    operations = to_core_ml(InTime(part.block), (x,))._mil_program.functions["main"].operations
    high = {operation.op_type for operation in operations if any(var.rank > 5 for var in operation.outputs)}
    part.expect(not high, f"its Core ML program has tensors of rank above 5 in {sorted(high)}")
