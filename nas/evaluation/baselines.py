"""Linear baselines: what the latents show without a decoder. Every student has to beat them by a wide margin.

Least squares on the train split, against the teacher's frames as students are trained. A first latent frame that
becomes one frame has statistics of its own and gets a map of its own.
"""

from collections.abc import Callable

import torch
from einops import reduce, repeat
from torch import Tensor

from blocks import Shortcut, TimeContext, block_config, build_block
from blocks.time_context import to_frames, to_video
from nas.data.targets import Targets
from nas.evaluation.quality import Decode
from search_spaces import LatentSpec

_FIT_SAMPLES = 256
"""Samples that a baseline is fitted to: a linear map has few weights."""


def nearest_linear_rgb(targets: Targets) -> Decode:
    """The best linear map of a latent vector to one colour, repeated over all pixels and frames it stands for."""
    spec = targets.spec
    colours = _fitted(targets, temporal=1, spatial=1, wanted=_colours)

    def decode(latents: Tensor) -> Tensor:
        per_latent = _run(colours, latents, spec)[:, :, _latent_of_frame(spec, latents.shape[2])]
        frames: Tensor = repeat(per_latent, "b c t h w -> b c t (h p) (w q)", p=spec.spatial, q=spec.spatial)
        return frames

    return decode


def linear_patches(targets: Targets) -> Decode:
    """The best linear map of a latent vector to its whole patch of video: the limit of what works without a decoder."""
    spec = targets.spec
    patches = _fitted(targets, spec.temporal, spec.spatial, wanted=lambda frames, spec: frames)
    return lambda latents: _run(patches, latents, spec)


def _fitted(targets: Targets, temporal: int, spatial: int, wanted: Callable[[Tensor, LatentSpec], Tensor]) -> Shortcut:
    """A linear map per latent vector to `wanted(frames, spec)`, `temporal` frames of `spatial` pixels squared each."""
    spec, split = targets.spec, targets.split("train")
    config = block_config({"name": "linear_shortcut", "kernel_size": 1})
    geometry = spec.patch_geometry() | {"temporal_factor": temporal, "spatial_factor": spatial}
    linear = build_block(config, spec.channels, **geometry)
    assert isinstance(linear, Shortcut)
    drops = spec.drops_leading(split.batch(split.some(1)).latents.shape[2])
    batches = (split.batch([index]) for index in split.some(_FIT_SAMPLES))
    linear.fit(((batch.latents, wanted(batch.frames, spec)) for batch in batches), drops_leading=drops)
    return linear.eval()


def _run(linear: Shortcut, latents: Tensor, spec: LatentSpec) -> Tensor:
    time = TimeContext(len(latents), "causal", drop_leading=spec.drops_leading(latents.shape[2]))
    with torch.no_grad():
        return to_video(linear.to(latents.device)(to_frames(latents.float()), time), time)


def _colours(frames: Tensor, spec: LatentSpec) -> Tensor:
    """Mean colour of what each latent vector stands for: `(b, 3, t', h', w')` -> `(b, 3, t, h, w)`."""
    small = reduce(frames, "b c t (h p) (w q) -> b c t h w", "mean", p=spec.spatial, q=spec.spatial)
    leading = small.shape[2] % spec.temporal  # one frame, or none
    later = reduce(small[:, :, leading:], "b c (t k) h w -> b c t h w", "mean", k=spec.temporal)
    return torch.cat([small[:, :, :leading], later], dim=2)


def _latent_of_frame(spec: LatentSpec, num_latents: int) -> list[int]:
    """Index of the latent frame that each frame belongs to."""
    first = spec.temporal - 1 if spec.drops_leading(num_latents) else 0
    return [(frame + first) // spec.temporal for frame in range(spec.num_frames(num_latents))]
