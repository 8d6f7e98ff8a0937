"""Targets of a teacher that is a formula: small, with more in them than a linear map shows, learnt in a second.

The frames are smooth in space where `nearest_linear_rgb` is blocky, and the colours are no linear function of the
latents, whose channels have mean and spread of their own as those of real teachers have.
"""

from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from blocks import get_block
from nas.data.settings import Split
from nas.data.shards import write_shard
from nas.data.targets import Samples, ShardSamples, Targets
from nas.teachers import Tap
from search_spaces import Decoder, DecoderConfig, LatentSpec, StageConfig

SPEC = LatentSpec(channels=4, spatial=4, temporal=2, mean=(0.5, -1.0, 2.0, 0.0), std=(2.0, 0.5, 1.0, 3.0))
"""4 channels, 2x4x4, 2(n-1)+1 frames."""

TAPS = {"middle": Tap(6, 1, 1), "up": Tap(5, 2, 2), "beyond": Tap(3, 1, 4)}
"""Two on grids of `CONFIG`, and one on a grid that it never visits."""

CONFIG = DecoderConfig(
    latents=SPEC,
    stem=get_block("conv3d_stem").Config(),
    stages=(
        StageConfig(16, 1, get_block("memory_conv2d").Config()),
        StageConfig(
            12,
            1,
            get_block("memory_conv2d").Config(),
            upsampler=get_block("nearest_conv3d").Config(),
            temporal_factor=2,
            spatial_factor=2,
        ),
    ),
    head=get_block("pixel_shuffle_head").Config(),
)
"""A causal student of about 20 thousand parameters; the head makes the last 2x."""

OTHER_CONFIG = replace(CONFIG, stages=(replace(CONFIG.stages[0], width=8), CONFIG.stages[1]))
"""Another architecture for the same latents."""

BIDIRECTIONAL = replace(CONFIG, temporal_mode="bidirectional")
"""It looks ahead."""


def build_student(seed: int = 0, config: DecoderConfig = CONFIG) -> Decoder:
    """A fresh student; leaves the global random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoder(config)


def make_targets(
    train: int = 24, score: int = 2, test: int = 2, *, spec: LatentSpec = SPEC, folder: Path | None = None
) -> Targets:
    """Targets with so many samples, of one clip per split, in memory or in shards under `folder`."""
    splits: dict[Split, Samples] = {}
    counts: dict[Split, int] = {"train": train, "score": score, "test": test}
    for seed, (name, count) in enumerate(counts.items()):
        splits[name] = _make_split(name, count, seed, spec, folder)
    return Targets("small", spec, dict(TAPS), splits)


def shards_of(targets: Targets, split: Split) -> ShardSamples:
    """The samples of a split, which lie in shards or were loaded from them."""
    samples = targets.split(split)
    assert isinstance(samples, ShardSamples)
    return samples


def folder_of(targets: Targets) -> Path:
    """Where targets that were computed lie."""
    (folder,) = {path.parent for split in targets.splits for path in shards_of(targets, split).shards}
    return folder


def teach(latents: Tensor, spec: LatentSpec = SPEC) -> tuple[Tensor, dict[str, Tensor]]:
    """The teacher: latents `(b, c, t, h, w)` -> frames `(b, 3, 2t-1, 4h, 4w)` in [-1, 1], and features by tap."""
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    normed = (latents - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(7)
    mix, paint = (torch.randn(*shape, generator=generator) for shape in ((6, spec.channels), (3, 6)))
    hidden = torch.tanh(torch.einsum("bcthw,dc->bdthw", normed, mix / 3))
    colours = torch.tanh(torch.einsum("bdthw,rd->brthw", hidden, paint / 2))
    stripes = torch.tensor([1.0, -0.6, 0.9, -0.2])
    frames = rearrange(torch.einsum("brthw,q->brthwq", colours, stripes), "b r t h w q -> b r t h (w q)")
    frames = frames.repeat_interleave(2, dim=2)[:, :, 1:].repeat_interleave(4, dim=3)
    finer = _enlarge(hidden, 2).repeat_interleave(2, dim=2)[:, :, 1:]
    return frames, {"middle": 7 * hidden + 3, "up": finer[:, :5], "beyond": _enlarge(hidden, 4)[:, :3]}


def _enlarge(video: Tensor, factor: int) -> Tensor:
    frames = functional.interpolate(rearrange(video, "b c t h w -> (b t) c h w"), scale_factor=factor, mode="bilinear")
    return rearrange(frames, "(b t) c h w -> b c t h w", b=video.shape[0])


def _make_split(name: Split, count: int, seed: int, spec: LatentSpec, folder: Path | None) -> ShardSamples:
    if count == 0:
        return ShardSamples((), (), (), {})
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, spec.channels, 3, 4, 4, generator=generator)
    latents = noise * torch.tensor(spec.std).view(-1, 1, 1, 1) + torch.tensor(spec.mean).view(-1, 1, 1, 1)
    frames, features = teach(latents, spec)
    truth = ((0.9 * frames + 1) * 127.5).round().byte()
    tensors = {"latents": latents, "frames": frames.half(), "truth": truth}
    tensors |= {f"feature.{tap}": feature.half().contiguous() for tap, feature in features.items()}
    samples, names = tuple((0, index) for index in range(count)), (f"{name} clip",) * count
    if folder is None:
        return ShardSamples((), samples, names, {0: tensors})
    path = folder / f"{name}-000.safetensors"
    write_shard(path, tensors)
    return ShardSamples((path,), samples, names, None)
