"""Parts as the contract sees them: built for every geometry of their role, run in one shot and as a stream."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from blocks import Block, BlockConfig, NotBuildableError, TimeContext, build_block, get_block
from blocks.layers.norms import BatchNorm
from blocks.time_context import State, TemporalMode, to_frames, to_video
from search_spaces.head_widths import HeadWidths


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A block built for one geometry, and how its role makes frames out of frames."""

    block: Block
    """The part itself."""
    config: BlockConfig
    """Options of the part."""
    in_channels: int
    """Channels of the input."""
    out_channels: int
    """Channels of the output."""
    temporal_factor: int = 1
    """Frames out per frame in."""
    spatial_factor: int = 1
    """Height and width out per height and width in."""
    leading: int = 0
    """Whether a linear shortcut has weights of its own for a first latent frame that becomes one frame."""

    def __str__(self) -> str:
        scale = f", x{self.temporal_factor} in time, x{self.spatial_factor} in space"
        options = ", ".join(f"{key}={value!r}" for key, value in dataclasses.asdict(self.config).items())
        return f"{self.config.name}({options}), {self.in_channels} -> {self.out_channels} channels{scale}"

    def input(self, frames: int = 3, height: int = 4, width: int = 6, *, batch: int = 1, seed: int = 0) -> Tensor:
        """Random `(b, c, t, h, w)` in [-1, 1]."""
        generator = torch.Generator().manual_seed(seed)
        return 2 * torch.rand(batch, self.in_channels, frames, height, width, generator=generator) - 1

    def run(self, x: Tensor, mode: TemporalMode = "causal", *, drop_leading: bool = False) -> Tensor:
        """`(b, c, t, h, w)` through the block in one shot, to `(b, c', t', h', w')`."""
        return self._run(x, TimeContext(x.shape[0], mode, drop_leading=drop_leading))

    def stream(self, x: Tensor, state: State | None, *, drop_leading: bool) -> tuple[Tensor, State]:
        """The same for one chunk of a stream."""
        time = TimeContext(x.shape[0], "causal", drop_leading=drop_leading, streaming=True, state=state)
        return self._run(x, time), time.new_state

    def num_frames(self, frames: int, *, drop_leading: bool) -> int:
        """Frames that come out of `frames` frames."""
        return self.temporal_factor * frames - (self.temporal_factor - 1) * drop_leading

    def expect(self, kept: bool, broken: str) -> None:
        """AssertionError if the promise is not kept."""
        if not kept:
            raise AssertionError(f"{self}: {broken}")

    def expect_equal(self, got: Tensor, wanted: Tensor, broken: str) -> None:
        """The same up to rounding in float32."""
        self.expect(got.shape == wanted.shape, f"{broken} (shape {tuple(got.shape)}, not {tuple(wanted.shape)})")
        error = (got - wanted).abs().max().item() if got.numel() else 0.0
        bound = 1e-5 * (1 + wanted.abs().max().item()) if got.numel() else 0.0
        self.expect(error <= bound, f"{broken} (differs by {error:.2g})")

    def _run(self, x: Tensor, time: TimeContext) -> Tensor:
        out = self.block(x if self.block.input_layout == "video" else to_frames(x), time)
        rank = 5 if self.block.output_layout == "video" else 4
        self.expect(out.ndim == rank, f"gives a tensor of rank {out.ndim}, its output layout has {rank}")
        return out if rank == 5 else to_video(out, time)


class InTime(nn.Module):
    """A block with its time context made inside, as torch.export and the counters need it; in the block's layout."""

    def __init__(self, block: Block, mode: TemporalMode = "causal") -> None:
        super().__init__()
        self.block = block
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """One clip in one shot, the first frame special as with most teachers."""
        out: Tensor = self.block(x, TimeContext(1, self.mode, drop_leading=True))
        return out


def each_option(default: BlockConfig) -> Iterator[BlockConfig]:
    """The default config of a part, and every other value of every option, one at a time."""
    yield default
    for option, values in default.options().items():
        for value in values:
            if value != getattr(default, option):
                yield dataclasses.replace(default, **{option: value})


_WIDTHS = ((8, 8), (8, 16), (24, 12), (12, 8), (16, 8))
"""Channels in and out: kept, widened and narrowed, by whole and by broken factors, not all powers of two."""
_FACTORS = ((1, 2), (2, 1), (3, 1), (4, 1), (3, 2))
"""Factors of an upsampler in time and space, with each of the widths (Mochi's latents need a factor of 3)."""
_PATCHES = ((1, 2, 0), (2, 1, 1), (6, 2, 1), (4, 2, 1))
"""Factors of a shortcut in time and space, and whether a first latent frame may become one frame."""


def parts(config: BlockConfig) -> Iterator[Part]:
    """The part that `config` describes in every geometry that its role has to offer, the most general one last.

    A head need not support every spatial factor, but one of them.

    Raises:
        AssertionError: it cannot be built for one of them.
    """
    for geometry in _geometries(config):
        yield _build(config, geometry)


def general_part(config: BlockConfig) -> Part:
    """The last of `parts`."""
    return _build(config, _geometries(config)[-1])


def _geometries(config: BlockConfig) -> list[dict[str, int]]:
    role = get_block(config.name).role
    between = [{"in_channels": wide, "out_channels": narrow} for wide, narrow in _WIDTHS]
    if role == "head":
        found = [
            {"in_channels": head_width(config.name, factor), "spatial_factor": factor}
            for factor in (1, 4, 2)
            if get_block(config.name).supports_factor(factor)
        ]
        if not found:
            raise AssertionError(f"{config.to_dict()}: supports none of the spatial factors 1, 2 and 4")
        return found
    if role == "shortcut":
        names = ("temporal_factor", "spatial_factor", "leading")
        return [{"in_channels": 8, **dict(zip(names, patch, strict=True))} for patch in _PATCHES]
    if role == "upsampler":
        scales = [{"temporal_factor": time, "spatial_factor": space} for time, space in (*_FACTORS, (2, 2))]
        return [geometry | scale for geometry, scale in zip([*between, between[1]], scales, strict=True)]
    return [*between[:1], *between[2:], between[1]]


def _build(config: BlockConfig, geometry: dict[str, int]) -> Part:
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            block = build_block(config, **geometry)
            _settle(block)
    except NotBuildableError as error:
        raise AssertionError(f"{config.to_dict()}: {error}") from error
    return Part(block, config, **{"out_channels": 3, **geometry})


def head_width(head: str, spatial_factor: int) -> int:
    """Channels in that a head takes, so many that four are left where a shuffle of all of them ends.

    A norm over a single channel keeps only its sign.
    """
    return HeadWidths.before(head, spatial_factor).fit(4 * spatial_factor**2)


def _settle(block: Block) -> None:
    """Batch norm promises nothing in training: such a block is checked in evaluation, with statistics of some clips."""
    for module in block.modules():
        if isinstance(module, BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            block.eval()


def stream_every_way(
    run: Callable[[Tensor, State | None], tuple[Tensor, State]], x: Tensor
) -> Iterator[tuple[tuple[int, ...], Tensor, State]]:
    """All ways of cutting `(b, c, t, h, w)` into chunks, and what each gives: where it is cut, frames, last state.

    Ways with the same beginning share it, so the same state is continued again and again, as by several streams.
    """
    start: tuple[tuple[int, ...], list[Tensor], State | None] = (0,), [], None
    begun = [start]
    while begun:
        cuts, frames, state = begun.pop()
        if state is not None and cuts[-1] == x.shape[2]:
            yield cuts, torch.cat(frames, dim=2), state
        for end in range(cuts[-1] + 1, x.shape[2] + 1):
            more, after = run(x[:, :, cuts[-1] : end], state)
            begun.append(((*cuts, end), [*frames, more], after))


def stream_in_chunks(
    run: Callable[[Tensor, State | None], tuple[Tensor, State]], x: Tensor
) -> Iterator[tuple[tuple[int, ...], Tensor, State]]:
    """Some ways of cutting a long clip, and what each gives, as `stream_every_way` has it."""
    frames = x.shape[2]
    for cuts in (tuple(range(frames + 1)), (0, 1, frames), (0, frames - 1, frames), (0, frames // 2, frames)):
        found, state = [], None
        for start, end in pairwise(cuts):
            more, state = run(x[:, :, start:end], state)
            found.append(more)
        assert state is not None
        yield cuts, torch.cat(found, dim=2), state
