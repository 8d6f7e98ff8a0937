"""What diffusers' pipelines read from the VAE that they are given: the geometry and the scaling of its latents.

All of it follows from the latents that a student was made for; nothing of it changes what the student computes. Names
are diffusers' own, where each family of pipelines has its own ones for the same thing.
"""

import inspect
from dataclasses import dataclass
from math import isclose
from typing import Any

import torch
from torch import Tensor

from nas.machine.torchvision_operators import import_torchvision
from nas.terminal.errors import UserError
from search_spaces import DecoderConfig, LatentSpec

import_torchvision()

import diffusers  # noqa: E402
from diffusers.configuration_utils import FrozenDict  # noqa: E402

GEOMETRY_NAMES = (
    *("z_dim", "latent_channels", "scale_factor_temporal", "scale_factor_spatial", "block_out_channels"),
    *("temporal_compression_ratio", "spatial_compression_ratio", "temperal_downsample", "timestep_conditioning"),
)
"""What pipelines read about the geometry of latents, and whether the decoder is told a noise level; in the config."""

SCALING_NAMES = ("latents_mean", "latents_std", "scaling_factor")
"""What they read about their scaling."""

UNKNOWN_SCALING = (
    "the scaling of these latents is not known to this TurboVAED: use model.attach(pipe), which takes it from the VAE "
    "that the pipeline has"
)
"""What a pipeline is told that asks for it."""


@dataclass(frozen=True)
class Scaling:
    """How a pipeline brings latents to unit scale, `(z - mean) / std * factor`, and back before it calls `decode`."""

    latents_mean: tuple[float, ...] | None = None
    """Mean of each channel; None where there is only a factor."""
    latents_std: tuple[float, ...] | None = None
    """Standard deviation of each channel; None likewise."""
    scaling_factor: float = 1.0
    """The factor; 1 where mean and std are all."""

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the latents as `decode` takes them."""
        mean, std = self.latents_mean or (0.0,) * channels, self.latents_std or (1.0,) * channels
        return mean, tuple(each / self.scaling_factor for each in std)

    def to_raw(self, latents: Tensor) -> Tensor:
        """Latents `(b, c, t, h, w)` of unit scale, as a diffusion model gives them -> as `decode` takes them."""
        mean, std = (torch.tensor(each).view(-1, 1, 1, 1).to(latents) for each in self.statistics(latents.shape[1]))
        return latents * std + mean

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives by diffusers' names, which `from_dict` takes back."""
        mean, std = self.latents_mean, self.latents_std
        return {
            "latents_mean": None if mean is None else list(mean),
            "latents_std": None if std is None else list(std),
            "scaling_factor": self.scaling_factor,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scaling":
        """Inverse of `to_dict`."""
        mean, std = data["latents_mean"], data["latents_std"]
        return cls(mean and tuple(mean), std and tuple(std), data["scaling_factor"])


_FACTORS = {"hunyuan": 0.476986, "hunyuan1.5": 1.03682, "cogvideox": 0.7, "video-dc-ae": 1.0}
"""Teacher -> the factor of its published weights."""
_DEFAULTS = {"wan": "AutoencoderKLWan", "wan-tiny": "AutoencoderKLWan"}
"""Teacher -> the class in diffusers whose default mean and std are those of its published weights."""


def known_scaling(latents: LatentSpec, teacher: str) -> Scaling | None:
    """The scaling of a teacher's latents: by their statistics, else as published; None if neither is known.

    A std alone that is the same everywhere is what teachers with a factor have.
    """
    if latents.mean or len(set(latents.std)) > 1:
        zeros, ones = (0.0,) * latents.channels, (1.0,) * latents.channels
        return Scaling(latents.mean or zeros, latents.std or ones)
    if latents.std:
        # The inverse of an inverse: without the last digits it is the number that was published.
        return Scaling(scaling_factor=float(f"{1 / latents.std[0]:.12g}"))
    if teacher in _FACTORS:
        return Scaling(scaling_factor=_FACTORS[teacher])
    if teacher in _DEFAULTS:
        defaults = inspect.signature(getattr(diffusers, _DEFAULTS[teacher])).parameters
        return Scaling(tuple(defaults["latents_mean"].default), tuple(defaults["latents_std"].default))
    return None


def scaling_of(vae: Any) -> Scaling:
    """The scaling that a VAE of diffusers has in its configuration, or (LTX) beside its weights."""
    buffers = {name: buffer.tolist() for name, buffer in vae.named_buffers(recurse=False)}
    mean, std = (vae.config.get(name) or buffers.get(name) for name in ("latents_mean", "latents_std"))
    factor = vae.config.get("scaling_factor")
    return Scaling(mean and tuple(mean), std and tuple(std), 1.0 if factor is None else float(factor))


def check_replaces(vae: Any, latents: LatentSpec, scaling: Scaling | None) -> None:
    """Refuse a VAE of diffusers whose latents are not those of a student.

    Args:
        vae: the VAE.
        latents: what the student decodes.
        scaling: of these latents; None if it is not known.

    Raises:
        UserError: another number of channels, another compression, or another scaling.
    """
    expected = (latents.channels, latents.temporal, latents.spatial)
    found = _geometry(vae)
    differ = any(a is not None and a != b for a, b in zip(found, expected, strict=True))
    theirs = scaling_of(vae).statistics(latents.channels)
    ours = theirs if scaling is None else scaling.statistics(latents.channels)
    if differ:
        what = "{0} channels, {1}x{2}x{2}".format
        reason = f"has latents of {what(*found)}, the decoder takes {what(*expected)}"
    elif not all(
        isclose(a, b, rel_tol=1e-2, abs_tol=1e-3) for a, b in zip(sum(theirs, ()), sum(ours, ()), strict=True)
    ):
        reason = "has latents of another mean or std (config scaling_factor, latents_mean, latents_std)"
    else:
        return
    raise UserError(f"{type(vae).__name__} {reason}: attach the VAE that the decoder was distilled from")


def _geometry(vae: Any) -> tuple[int | None, int | None, int | None]:
    """Channels, temporal and spatial compression, each None where a VAE does not say it."""
    config = vae.config
    widths = config.get("block_out_channels")
    temporal, spatial = (
        config.get(f"scale_factor_{axis}")
        or config.get(f"{axis}_compression_ratio")
        or vars(vae).get(f"{axis}_compression_ratio")
        for axis in ("temporal", "spatial")
    )
    if spatial is None and widths:
        spatial = 2 ** (len(widths) - 1)
    return config.get("z_dim") or config.get("latent_channels"), temporal, spatial


def geometry_config(config: DecoderConfig) -> dict[str, Any]:
    """Everything that pipelines read which follows from the geometry of a decoder's latents."""
    latents = config.latents
    values = (
        *(latents.channels, latents.channels, latents.temporal, latents.spatial, _widths(config)),
        *(latents.temporal, latents.spatial, _halvings_in_time(latents), False),
    )
    return dict(zip(GEOMETRY_NAMES, values, strict=True))


def _halvings_in_time(latents: LatentSpec) -> list[bool]:
    """For each halving in space of an encoder whether it is one in time, too: the last ones are."""
    in_space, in_time = latents.spatial_doublings, len(latents.temporal_steps)
    return [index >= in_space - in_time for index in range(in_space)]


def _widths(config: DecoderConfig) -> list[int]:
    """Channels at each resolution, from that of the frames to that of the latents."""
    factor, width = 1, config.stages[0].width
    widths = {factor: width}
    for stage in config.stages:
        factor *= stage.spatial_factor
        widths[factor] = stage.width
    resolutions = [2**doubling for doubling in range(config.latents.spatial_doublings + 1)]
    return [widths[max(each for each in widths if each <= at)] for at in reversed(resolutions)]


class PipelineConfig(FrozenDict):  # type: ignore[misc]
    """A config that says what to do where it does not know the scaling of its latents."""

    def __getattr__(self, name: str) -> Any:
        if name in SCALING_NAMES:
            raise AttributeError(UNKNOWN_SCALING)
        raise AttributeError(f"the config of this TurboVAED has no '{name}'")
