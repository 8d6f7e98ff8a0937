"""Decoder: latents to frames, a flat sequence of parts built from a DecoderConfig."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from blocks import Block, BlockConfig, NotBuildableError, Shortcut, TimeContext, build_block
from blocks.layers.convolutions import single_frames
from blocks.registry import describe_error
from blocks.time_context import Layout, State, to_frames, to_layout, to_video
from search_spaces.config import DecoderConfig, StageConfig


class Stage(nn.Module):
    """Transition, upsampler and blocks of one stage, in the order in which they run."""

    def __init__(self, config: StageConfig, in_channels: int) -> None:
        super().__init__()
        width = config.width
        self.parts = nn.ModuleList()
        channels = in_channels
        if config.transition is not None:
            self.parts.append(build_block(config.transition, channels, out_channels=width))
            channels = width
        if config.upsampler is not None:
            factors = {"temporal_factor": config.temporal_factor, "spatial_factor": config.spatial_factor}
            self.parts.append(build_block(config.upsampler, channels, out_channels=width, **factors))
            channels = width
        for _ in range(config.depth):
            self.parts.append(build_block(config.block, channels, out_channels=width))
            channels = width
        if channels != width or not self.parts:
            raise NotBuildableError(
                f"a stage {in_channels} -> {width} channels needs an upsampler, a transition or a block"
            )


class Decoder(nn.Module):
    """A student decoder: the teacher's latents in, as many frames of the same size out.

    Latents are `(b, c, t, h, w)`, raw, as the teacher's `decode` takes them; frames `(b, 3, t', h', w')`, RGB,
    nominally in [-1, 1] and not clamped. Built from `config` alone. Where the latents have no time (images: a temporal
    factor of 1) frames are decoded one by one, and kernels in time are 1 long.

    Raises:
        NotBuildableError: a part cannot be built for its place, such as a head for the width before it.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        with single_frames() if config.latents.temporal == 1 else nullcontext():
            self._build_parts(config)

    def _build_parts(self, config: DecoderConfig) -> None:
        width = config.stages[0].width
        self.stem = build_block(config.stem, config.latents.channels, out_channels=width)
        self.stages = nn.ModuleList()
        for stage in config.stages:
            self.stages.append(Stage(stage, width))
            width = stage.width
        self.head = build_block(config.head, width, spatial_factor=config.head_factor)
        self.shortcut = None if config.shortcut is None else self._build_shortcut(config.shortcut)

    def forward(self, latents: Tensor) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, 3, t', h', w')`, the whole clip at once."""
        return self.features(latents, ())[0]

    def features(self, latents: Tensor, stages: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Frames, and the outputs `(b, c, t, h, w)` of the stages with these indices."""
        time = self._time(latents)
        if self.config.latents.temporal == 1:
            return self._run_images(latents, time, frozenset(stages))
        return self._run(latents, time, frozenset(stages))

    @property
    def can_stream(self) -> bool:
        """Whether no frame depends on a later latent frame or on their number."""
        images = self.config.latents.temporal == 1
        return self.config.latents.frame_rule != "leading_if_odd" and (images or self.config.temporal_mode == "causal")

    def stream(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One chunk of a stream: the next latents and the state that the chunk before returned (None to start).

        Every way of cutting latents into chunks gives the same frames. Only causal decoders stream, and those whose
        latents have no time, without a state.
        """
        if self.config.latents.frame_rule == "leading_if_odd":
            raise ValueError("latents with the frame rule 'leading_if_odd' cannot stream: it needs their whole number")
        if self.config.latents.temporal == 1:
            return self(latents), ()
        time = self._time(latents, streaming=True, state=state)
        frames, _ = self._run(latents, time, frozenset())
        return frames, time.new_state

    def check_latents(self, latents: Tensor) -> None:
        """ValueError if these are no latents `(b, c, t, h, w)` of this decoder."""
        channels = self.config.latents.channels
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(f"expected latents (b, {channels}, t, h, w), got {tuple(latents.shape)}")

    def stage_channels(self, index: int) -> int:
        """Channels of a stage's output."""
        return self.config.stages[index].width

    def stage_grid(self, index: int) -> tuple[int, int]:
        """Frames, and height and width, of a stage's output per frame, and height and width, of the latents."""
        temporal = spatial = 1
        for stage in self.config.stages[: index + 1]:
            temporal *= stage.temporal_factor
            spatial *= stage.spatial_factor
        return temporal, spatial

    def stage_modules(self) -> dict[str, nn.Module]:
        """The groups that costs are reported for: stem, stage0, stage1, ..., head, and shortcut if there is one."""
        stages = {f"stage{index}": stage for index, stage in enumerate(self.stages)}
        groups: dict[str, nn.Module] = {"stem": self.stem, **stages, "head": self.head}
        return groups if self.shortcut is None else groups | {"shortcut": self.shortcut}

    @torch.no_grad()
    def initialise_from_latent_statistics(self) -> None:
        """Fold mean and std of the latents into the stem, so that a fresh decoder sees normalised latents."""
        spec = self.config.latents
        conv = self.stem.conv
        assert isinstance(conv, (nn.Conv2d, nn.Conv3d)) and conv.bias is not None
        weight = conv.weight
        per_input = (1, -1, *[1] * (weight.ndim - 2))
        mean = torch.tensor(spec.mean or (0.0,) * spec.channels, dtype=weight.dtype, device=weight.device)
        std = torch.tensor(spec.std or (1.0,) * spec.channels, dtype=weight.dtype, device=weight.device)
        weight /= std.view(per_input)
        conv.bias -= (weight * mean.view(per_input)).flatten(1).sum(dim=1)

    def _build_shortcut(self, config: BlockConfig) -> Shortcut:
        latents = self.config.latents
        shortcut = build_block(config, latents.channels, **latents.patch_geometry())
        assert isinstance(shortcut, Shortcut)
        return shortcut

    def _time(self, latents: Tensor, *, streaming: bool = False, state: State | None = None) -> TimeContext:
        self.check_latents(latents)
        batch, _, frames = latents.shape[:3]
        drop, at_end = self.config.latents.drops_leading(frames), self.config.trim == "end"
        mode = self.config.temporal_mode
        return TimeContext(batch, mode, drop_leading=drop, at_end=at_end, streaming=streaming, state=state)

    def _parts(self) -> Iterator[tuple[int | None, nn.Module]]:
        """All parts in order; with the last part of a stage, the stage's index."""
        yield None, self.stem
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, Stage)
            last = len(stage.parts) - 1
            for position, part in enumerate(stage.parts):
                yield (index if position == last else None), part
        yield None, self.head

    def _run_images(self, latents: Tensor, time: TimeContext, taps: frozenset[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Where the latents have no time, each frame is a clip of its own, whatever the parts ask of the others."""
        images = to_frames(latents)[:, :, None]
        frames, tapped = self._run(images, self._time(images), taps)
        return self._clip(frames, time), {index: self._clip(x, time) for index, x in tapped.items()}

    @staticmethod
    def _clip(images: Tensor, time: TimeContext) -> Tensor:
        """`(b t, c, 1, h, w)` -> `(b, c, t, h, w)`."""
        return to_video(images.flatten(1, 2), time)

    def _run(self, latents: Tensor, time: TimeContext, taps: frozenset[int]) -> tuple[Tensor, dict[int, Tensor]]:
        x = latents
        layout: Layout = "video"
        tapped: dict[int, Tensor] = {}
        for stage, part in self._parts():
            assert isinstance(part, Block)
            x = part(to_layout(x, layout, part.input_layout, time), time)
            layout = part.output_layout
            if stage in taps:
                assert stage is not None
                tapped[stage] = time.trim(to_layout(x, layout, "video", time), self.stage_grid(stage)[0] - 1)
        if self.shortcut is not None:
            frames = self.shortcut(to_layout(latents, "video", self.shortcut.input_layout, time), time)
            x = x + to_layout(frames, self.shortcut.output_layout, layout, time)
        return time.trim(to_layout(x, layout, "video", time), self.config.latents.temporal - 1), tapped


def build_skeleton(config: DecoderConfig, size: tuple[int, int, int] = (2, 2, 2)) -> Decoder:
    """The decoder on the meta device: shapes and operations without weights, which takes no memory.

    Args:
        config: its architecture.
        size: frames, height and width of the latents that it is tried on.

    Raises:
        NotBuildableError: a part cannot be built for its place, or the parts do not run there.
    """
    with torch.device("meta"):
        decoder = Decoder(config)
    latents = torch.empty(1, config.latents.channels, *size, device="meta")
    try:
        with torch.no_grad():
            decoder(latents)
    except Exception as error:  # whatever a part raises, the decoder is of no use
        raise NotBuildableError(f"its parts do not run together: {describe_error(error)}") from error
    return decoder


@torch.no_grad()
def silence(head: nn.Module) -> None:
    """Set a head's last convolution to zero: its decoder then gives what its linear shortcut gives."""
    *_, last = (module for module in head.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))
    for parameter in last.parameters():
        parameter.zero_()
