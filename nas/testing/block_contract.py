"""The contract that every registered part keeps, whatever its options. One check per promise:

    from nas.testing import CHECKS

    for check in CHECKS.values():
        check(get_block("my_block").Config())

A check raises AssertionError that names the part, its options and geometry, and what is wrong.
"""

import copy
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blocks import BlockConfig, Shortcut, block_config, get_block, list_blocks
from blocks.rewrites import merge_branches
from blocks.time_context import to_frames
from nas.core_ml.convert import export_program, to_core_ml
from nas.latency.prediction.operations import list_operations
from nas.terminal.extras import missing_extra
from nas.testing.block_parts import InTime, Part, parts, stream_every_way
from nas.testing.count_macs import count_macs
from search_spaces.decoder import silence

Check = Callable[[BlockConfig], None]

CHECKS: dict[str, Check] = {}
"""Every check by its name."""

_HALF_INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "all zeros": torch.zeros_like,
    "values below 1": lambda x: x,
    "values of 1e-4": lambda x: 1e-4 * x,
    "all 300": lambda x: torch.full_like(x, 300.0),
    "values up to 300": lambda x: 300 * x,
}
"""Squares of the last two overflow float16, squares of the third vanish in it."""


def _check(check: Callable[[Part], None]) -> Check:
    """Register a check of a part; the result runs it in every geometry, and on a block in training mode."""

    @functools.wraps(check)
    def checked(config: BlockConfig) -> None:
        for part in parts(config):
            _run_check(check, part)

    CHECKS[check.__name__.removeprefix("check_")] = checked
    return checked


def _check_once(check: Callable[[Part], None]) -> Check:
    """The same in the most general geometry only."""

    @functools.wraps(check)
    def checked(config: BlockConfig) -> None:
        *_, part = parts(config)
        _run_check(check, part)

    CHECKS[check.__name__.removeprefix("check_")] = checked
    return checked


def _run_check(check: Callable[[Part], None], part: Part) -> None:
    try:
        check(part)
    except AssertionError:
        raise
    except ModuleNotFoundError as error:
        error.add_note(missing_extra(error) or "")
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        raise AssertionError(f"{part}: {check.__name__}: {text}") from error


@_check_once
def check_registration(part: Part) -> None:
    """In `blocks` the name is the file's; no other part prints the same label; a stem exposes its convolution."""
    block = type(part.block)
    file = Path(inspect.getfile(block)).stem
    ours = block.__module__.split(".")[0] == "blocks"
    part.expect(file == block.name or not ours, f"is in {file}.py, but a part is in the file of its name")
    twins = [name for name in list_blocks() if get_block(name).label == block.label and name != block.name]
    part.expect(not twins, f"has the label '{block.label}' of {twins}")
    if block.role == "stem":
        conv = getattr(part.block, "conv", None)
        folds = isinstance(conv, (nn.Conv2d, nn.Conv3d)) and conv.bias is not None
        part.expect(folds, "has no convolution `conv` with bias, into which the latents' statistics can be folded")


@_check_once
def check_json(part: Part) -> None:
    """The config goes through JSON and comes back equal, hash included."""
    data = json.loads(json.dumps(part.config.to_dict()))
    back = block_config(data)
    part.expect(back == part.config and hash(back) == hash(part.config), f"came back from JSON as {back}")
    part.expect(data == part.config.to_dict(), "its JSON came back changed")


@_check
def check_shape(part: Part) -> None:
    """A clip, one frame, odd sizes, a batch; both modes; with and without the drop of leading frames."""
    sizes = ((1, 3, 4, 6), (1, 1, 4, 4), (1, 3, 5, 7), (2, 3, 5, 7), (2, 1, 1, 1))
    for batch, frames, height, width in sizes:
        x = part.input(frames, height, width, batch=batch)
        for drop in (False, True):
            scale = part.spatial_factor
            out_frames = part.num_frames(frames, drop_leading=drop)
            wanted = (batch, part.out_channels, out_frames, height * scale, width * scale)
            for mode in ("causal", "bidirectional"):
                got = tuple(part.run(x, mode, drop_leading=drop).shape)
                part.expect(got == wanted, f"{mode}, input {tuple(x.shape)}: output is {got}, not {wanted}")


@_check
def check_meta_device(part: Part) -> None:
    """Runs on the meta device, where latency is predicted."""
    x = part.input().to("meta")
    moved = dataclasses.replace(part, block=part.block.to("meta"))
    part.expect(moved.run(x).is_meta, "computes on another device than its input's")


@_check
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


@_check
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


@_check
@torch.no_grad()
def check_silence(part: Part) -> None:
    """A head whose last convolution is zero gives black frames: with a shortcut, a decoder begins so."""
    if part.block.role != "head":
        return
    silence(part.block)
    part.expect(not part.run(part.input()).any(), "is not silent with its last convolution at zero")


@_check
@torch.no_grad()
def check_causality(part: Part) -> None:
    """In causal mode no output frame depends on a later input frame."""
    if not part.block.causal:
        return
    x, other = part.input(5), part.input(5, seed=1)
    for drop in (False, True):
        whole = part.run(x, drop_leading=drop)
        for seen in range(1, 5):
            changed = torch.cat([x[:, :, :seen], 9 * other[:, :, seen:]], dim=2)
            frames = part.num_frames(seen, drop_leading=drop)
            got = part.run(changed, drop_leading=drop)[:, :, :frames]
            part.expect_equal(got, whole[:, :, :frames], f"not causal: output before frame {frames} sees input {seen}")


@_check
@torch.no_grad()
def check_batch_independence(part: Part) -> None:
    """A clip's output does not depend on what else is in the batch, in training and in evaluation."""
    x = torch.cat([part.input(), 5 * part.input(seed=1) + 1])
    for training in (True, False) if part.block.training else (False,):
        part.block.train(training)
        for mode in ("causal", "bidirectional"):
            together = part.run(x, mode, drop_leading=True)
            for index in (0, 1):
                alone = part.run(x[index : index + 1], mode, drop_leading=True)
                part.expect_equal(together[index : index + 1], alone, "a clip depends on the others in its batch")


@_check
@torch.no_grad()
def check_determinism(part: Part) -> None:
    """The same input gives the same output, in training and in evaluation, and is left as it was."""
    x = part.input()
    kept = x.clone()
    first = part.run(x, drop_leading=True)
    part.expect(torch.equal(x, kept), "changes its input")
    part.run(part.input(seed=1))
    part.expect_equal(part.run(x, drop_leading=True), first, "another output for the same input")
    part.block.eval()
    part.expect_equal(part.run(x, drop_leading=True), first, "another output in evaluation than in training")


@_check
@torch.no_grad()
def check_streaming(part: Part) -> None:
    """Every way of cutting 7 frames into chunks gives what one shot gives; the state is small, whatever the chunks."""
    if not part.block.causal:
        return
    for drop, batch in ((False, 2), (True, 1)):
        clip = part.input(7, 2, 3, batch=batch)
        whole = part.run(clip, drop_leading=drop)
        sizes = set()
        run = functools.partial(part.stream, drop_leading=drop)
        for cuts, frames, state in stream_every_way(run, clip):
            part.expect_equal(frames, whole, f"chunks {cuts} do not give what one shot gives")
            sizes.add(tuple((tensor.shape, tensor.untyped_storage().nbytes()) for tensor in state))
        part.expect(len(sizes) == 1, f"the state's size depends on the chunks: {sorted(sizes)}")


@_check
@torch.no_grad()
def check_half_precision(part: Part) -> None:
    """Finite in bfloat16 and float16, for zeros and for values whose squares overflow; the dtype is kept."""
    for dtype in (torch.bfloat16, torch.float16):
        half = dataclasses.replace(part, block=part.block.to(dtype))
        for what, make in _HALF_INPUTS.items():
            out = half.run(make(part.input()).to(dtype))
            part.expect(out.dtype == dtype, f"gives {out.dtype} for {dtype}")
            part.expect(bool(out.isfinite().all()), f"not finite in {dtype} for {what}")


@_check
@torch.no_grad()
def check_macs(part: Part) -> None:
    """fvcore and our own list count the same multiply-accumulates, and every weight takes part."""
    layout = part.block.input_layout
    block = InTime(part.block).eval()
    for x in (part.input(), part.input(1, 1, 1)):
        x = x if layout == "video" else to_frames(x)
        counted, unknown = count_macs(block, x)
        part.expect(not unknown, f"the cost of {sorted(unknown)} is not counted")
        listed = sum(operation.macs for operation in list_operations(block, x.shape))
        part.expect(listed == counted, f"list_operations counts {listed} MACs, fvcore {counted}")
    # At one position every weight is used once or more; a vector may be a bias or a scale.
    merge_branches(part.block, "causal")
    weights = sum(p.numel() for p in part.block.parameters() if sum(size > 1 for size in p.shape) > 1)
    part.expect(counted >= weights, f"{counted} MACs at one position are counted, but it has {weights} weights")


@_check_once
@torch.no_grad()
def check_export(part: Part) -> None:
    """torch.export takes it (no control flow that depends on data), and the program gives what the block gives."""
    x = part.input() if part.block.input_layout == "video" else to_frames(part.input())
    for mode in ("causal", "bidirectional"):
        module = InTime(part.block, mode).eval()
        program: Any = export_program(module, (x,)).module()
        part.expect_equal(program(x), module(x), f"the exported {mode} program gives something else")


@_check_once
def check_core_ml(part: Part) -> None:
    """coremltools converts it, to a program without a tensor of more than 5 axes."""
    x = part.input() if part.block.input_layout == "video" else to_frames(part.input())
    model = to_core_ml(InTime(part.block), (x,))
    operations = model._mil_program.functions["main"].operations
    high = {operation.op_type for operation in operations if any(var.rank > 5 for var in operation.outputs)}
    part.expect(not high, f"its Core ML program has tensors of rank above 5 in {sorted(high)}")
