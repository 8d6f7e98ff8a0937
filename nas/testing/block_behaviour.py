"""Checks of what a part does with frames: sizes, devices, time, batches, streams."""

import dataclasses
import functools

import torch

from blocks import BlockConfig, NotBuildableError, build_block
from blocks.registry import describe_error
from nas.testing.block_parts import Part, parts, stream_every_way, stream_in_chunks
from nas.testing.checking import in_every_geometry
from nas.testing.offered_geometries import offered_geometries

_LONG = 11
"""Frames of a clip that is longer than what any part looks back on."""


def check_construction(config: BlockConfig) -> None:
    """It can be built for every geometry of its role, and at every width that a registered space offers it."""
    for _ in parts(config):
        pass
    for space, geometry in offered_geometries(config.name):
        try:
            with torch.device("meta"):
                build_block(config, **geometry)
        except NotBuildableError as error:
            raise AssertionError(f"{config.to_dict()}: {error}, which the space '{space}' offers") from error


@in_every_geometry
def check_shape(part: Part) -> None:
    """A clip, one frame, a long clip, odd sizes, batches; both modes; with and without the drop of leading frames."""
    sizes = ((1, 3, 4, 6), (1, 1, 4, 4), (1, 3, 5, 7), (2, 3, 5, 7), (2, 1, 1, 1), (3, 2, 3, 2), (1, _LONG, 2, 3))
    for batch, frames, height, width in sizes:
        x = part.input(frames, height, width, batch=batch)
        for drop in (False, True):
            scale = part.spatial_factor
            out_frames = part.num_frames(frames, drop_leading=drop)
            wanted = (batch, part.out_channels, out_frames, height * scale, width * scale)
            for mode in ("causal", "bidirectional"):
                got = tuple(part.run(x, mode, drop_leading=drop).shape)
                part.expect(got == wanted, f"{mode}, input {tuple(x.shape)}: output is {got}, not {wanted}")


@in_every_geometry
def check_meta_device(part: Part) -> None:
    """Runs on the meta device, where latency is predicted: nothing depends on the values, everything is moved."""
    x = part.input().to("meta")
    moved = dataclasses.replace(part, block=part.block.to("meta"))
    try:
        out = moved.run(x)
    except RuntimeError as error:
        # The only thing that asks a tensor without values for one is Python that decides by it.
        part.expect("item()" not in str(error), f"its control flow is data-dependent ({describe_error(error)})")
        raise
    part.expect(out.is_meta, "computes on another device than its input's")


@in_every_geometry
@torch.no_grad()
def check_determinism(part: Part) -> None:
    """The same input gives the same output, whatever came before, and is left as it was."""
    x = part.input()
    kept = x.clone()
    first = part.run(x, drop_leading=True)
    part.expect(torch.equal(x, kept), "changes its input")
    part.run(part.input(seed=1))
    part.expect_equal(part.run(x, drop_leading=True), first, "another output for the same input")


@in_every_geometry
@torch.no_grad()
def check_causality(part: Part) -> None:
    """In causal mode no output frame depends on a later input frame."""
    if not part.block.causal:
        return
    x, other = part.input(_LONG, 2, 3), part.input(_LONG, 2, 3, seed=1)
    for drop in (False, True):
        whole = part.run(x, drop_leading=drop)
        for seen in (1, 2, 3, 4, _LONG - 1):
            changed = torch.cat([x[:, :, :seen], 9 * other[:, :, seen:]], dim=2)
            frames = part.num_frames(seen, drop_leading=drop)
            got = part.run(changed, drop_leading=drop)[:, :, :frames]
            part.expect_equal(got, whole[:, :, :frames], f"not causal: output before frame {frames} sees input {seen}")


@in_every_geometry
@torch.no_grad()
def check_batch_independence(part: Part) -> None:
    """A clip's output does not depend on what else is in the batch, in training and in evaluation."""
    x = torch.cat([part.input(), 5 * part.input(seed=1) + 1, part.input(seed=2)])
    for training in (True, False) if part.block.training else (False,):
        part.block.train(training)
        for mode in ("causal", "bidirectional"):
            together = part.run(x, mode, drop_leading=True)
            for index in range(3):
                alone = part.run(x[index : index + 1], mode, drop_leading=True)
                part.expect_equal(together[index : index + 1], alone, "a clip depends on the others in its batch")


@in_every_geometry
@torch.no_grad()
def check_evaluation(part: Part) -> None:
    """The same input gives the same output in evaluation as in training."""
    x = part.input()
    first = part.run(x, drop_leading=True)
    part.block.eval()
    part.expect_equal(part.run(x, drop_leading=True), first, "another output in evaluation than in training")


@in_every_geometry
@torch.no_grad()
def check_streaming(part: Part) -> None:
    """Every way of cutting 7 frames into chunks, and some of cutting more, gives what one shot gives.

    The state is small, whatever the chunks.
    """
    if not part.block.causal:
        return
    for drop, batch in ((False, 3), (True, 1)):
        clip, long = part.input(7, 2, 3, batch=batch), part.input(_LONG, 2, 3, batch=batch)
        run = functools.partial(part.stream, drop_leading=drop)
        sizes = set()
        for x, ways in ((clip, stream_every_way(run, clip)), (long, stream_in_chunks(run, long))):
            whole = part.run(x, drop_leading=drop)
            for cuts, frames, state in ways:
                part.expect_equal(frames, whole, f"chunks {cuts} do not give what one shot gives")
                sizes.add(tuple((tensor.shape, tensor.untyped_storage().nbytes()) for tensor in state))
        part.expect(len(sizes) == 1, f"the state's size depends on the chunks: {sorted(sizes)}")
