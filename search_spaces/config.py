"""DecoderConfig: the whole architecture of a decoder as frozen data. The saved JSON is its only source."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from blocks import BlockConfig, block_config, get_block
from blocks.registry import Role
from blocks.time_context import TemporalMode
from search_spaces.latent_spec import LatentSpec

Trim = Literal["stages", "end"]
"""`stages`: an upsampler in time drops its first frames. `end`: all are decoded and the first ones dropped (TAEHV)."""


@dataclass(frozen=True)
class StageConfig:
    """One stage: change of width, upsampling, blocks; in this order.

    Where the width changes, `transition` does it if given, else the upsampler, else the first block.

    Raises:
        ValueError: a number is below its range, an upsampler stands without a factor above 1 or such a factor without
            an upsampler, or a part has another role than its place demands.
    """

    width: int
    """Channels of the stage's output."""
    depth: int
    """Number of blocks after the upsampler; 0 is allowed where something else makes the width."""
    block: BlockConfig
    """Block that is repeated `depth` times."""
    upsampler: BlockConfig | None = None
    """Upsampler before the blocks; None if the stage keeps the grid."""
    temporal_factor: int = 1
    """Frames out per frame in."""
    spatial_factor: int = 1
    """Height out per height in, and width likewise."""
    transition: BlockConfig | None = None
    """Block before the upsampler that changes the width (Turbo-VAED has one); None if there is none."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "temporal_factor", "spatial_factor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} of a stage must be a whole number, got {value!r}")
        if self.width < 1 or self.depth < 0:
            raise ValueError(f"a stage needs width >= 1 and depth >= 0, got width {self.width}, depth {self.depth}")
        if min(self.temporal_factor, self.spatial_factor) < 1:
            raise ValueError(f"a factor must be at least 1, got {self.temporal_factor} and {self.spatial_factor}")
        scales = self.temporal_factor > 1 or self.spatial_factor > 1
        if scales != (self.upsampler is not None):
            raise ValueError(
                f"an upsampler and a factor above 1 go together, got upsampler "
                f"{self.upsampler.name if self.upsampler else None}, factors {self.temporal_factor} and "
                f"{self.spatial_factor}"
            )
        _check_role("block", self.block)
        _check_role("block", self.transition)
        _check_role("upsampler", self.upsampler)

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        return {
            "width": self.width,
            "depth": self.depth,
            "block": self.block.to_dict(),
            "upsampler": self.upsampler and self.upsampler.to_dict(),
            "temporal_factor": self.temporal_factor,
            "spatial_factor": self.spatial_factor,
            "transition": self.transition and self.transition.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "StageConfig":
        """Inverse of `to_dict`."""
        parts = {key: data[key] and block_config(data[key]) for key in ("block", "upsampler", "transition")}
        return cls(**{**data, **parts})


@dataclass(frozen=True)
class DecoderConfig:
    """The whole architecture of a decoder. Equal configs are the same architecture, and hash the same.

    Latents `(b, latents.channels, t, h, w)` go through stem, stages and head to frames
    `(b, 3, latents.num_frames(t), latents.spatial * h, latents.spatial * w)`. Frozen, made of JSON primitives.

    Raises:
        ValueError: there is no stage, a part has another role than its place demands, or the factors of the stages do
            not make the compression of the latents.
    """

    latents: LatentSpec
    """Geometry and statistics of the latents that the decoder takes."""
    stem: BlockConfig
    """First convolution, from the channels of the latents to the width of the first stage."""
    stages: tuple[StageConfig, ...]
    """Stages in the order of execution, from the resolution of the latents towards that of the frames."""
    head: BlockConfig
    """Last part, features to RGB frames; upsamples by `head_factor`."""
    temporal_mode: TemporalMode = "causal"
    """"causal" (streams, nothing looks ahead) or "bidirectional" (as Turbo-VAED was published)."""
    shortcut: BlockConfig | None = None
    """Linear shortcut, latents to RGB frames, which are added to the head's; None if there is none."""
    trim: Trim = "stages"
    """Where leading frames are dropped, as the frame rule of the latents asks. In JSON only where it is not default."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a decoder needs at least one stage")
        if self.temporal_mode not in get_args(TemporalMode):
            raise ValueError(f"temporal_mode must be causal or bidirectional, got '{self.temporal_mode}'")
        if self.trim not in get_args(Trim):
            raise ValueError(f"trim must be stages or end, got '{self.trim}'")
        if self.trim == "end" and self.shortcut is not None:
            raise ValueError("a linear shortcut makes one frame of the first latent frame: trim must be 'stages'")
        _check_role("stem", self.stem)
        _check_role("head", self.head)
        _check_role("shortcut", self.shortcut)
        temporal = spatial = 1
        for stage in self.stages:
            temporal *= stage.temporal_factor
            spatial *= stage.spatial_factor
        if temporal != self.latents.temporal:
            raise ValueError(f"the stages upsample {temporal}x in time, the latents need {self.latents.temporal}x")
        if self.latents.spatial % spatial:
            raise ValueError(f"the stages upsample {spatial}x in space, the latents need {self.latents.spatial}x")

    @property
    def head_factor(self) -> int:
        """Factor in height and width that the stages leave to the head; 1 if they leave nothing."""
        factor = self.latents.spatial
        for stage in self.stages:
            factor //= stage.spatial_factor
        return factor

    def drops_leading(self, num_latents: int) -> bool:
        """Whether upsamplers drop their first frames for a clip of `num_latents` latent frames."""
        return self.trim == "stages" and self.latents.drops_leading(num_latents)

    def searched(self) -> "DecoderConfig":
        """The same architecture without what no search varies: options for published weights, trimming at the end."""
        stages = tuple(
            replace(
                stage,
                block=stage.block.searched(),
                upsampler=stage.upsampler and stage.upsampler.searched(),
                transition=stage.transition and stage.transition.searched(),
            )
            for stage in self.stages
        )
        return replace(self, stem=self.stem.searched(), stages=stages, head=self.head.searched(), trim="stages")

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        return {
            "latents": self.latents.to_dict(),
            "stem": self.stem.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
            "head": self.head.to_dict(),
            "temporal_mode": self.temporal_mode,
            "shortcut": self.shortcut and self.shortcut.to_dict(),
            **({} if self.trim == "stages" else {"trim": self.trim}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DecoderConfig":
        """Inverse of `to_dict`.

        Raises:
            ValueError: a part is not registered here, or the parts do not fit together.
        """
        return cls(
            latents=LatentSpec.from_dict(data["latents"]),
            stem=block_config(data["stem"]),
            stages=tuple(StageConfig.from_dict(stage) for stage in data["stages"]),
            head=block_config(data["head"]),
            temporal_mode=data["temporal_mode"],
            shortcut=data["shortcut"] and block_config(data["shortcut"]),
            trim=data.get("trim", "stages"),
        )

    def digest(self) -> str:
        """Hash of the architecture and of what it decodes (statistics of the latents left out), 12 hex digits."""
        plain = replace(self, latents=replace(self.latents, mean=(), std=()))
        text = json.dumps(plain.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def summary(self) -> str:
        """One line, e.g. `dw3d 128x2 > dps > mem2d 48x2 > ps4`: blocks with width x depth, upsamplers between."""
        parts = []
        for stage in self.stages:
            count = stage.depth + (stage.transition is not None)
            blocks = f"{get_block(stage.block.name).label} {stage.width}x{count}"
            if stage.upsampler:
                time = "t" if stage.temporal_factor > 1 else ""
                label = get_block(stage.upsampler.name).label + time
                parts.append(label if count else f"{label} {stage.width}")
            if count:
                parts.append(blocks)
        head = get_block(self.head.name).label
        parts.append(f"{head}{self.head_factor}" if self.head_factor > 1 else head)
        shortcut = f" + {get_block(self.shortcut.name).label}" if self.shortcut else ""
        return " > ".join(parts) + shortcut


def _check_role(role: Role, config: BlockConfig | None) -> None:
    if config is not None and get_block(config.name).role != role:
        raise ValueError(f"'{config.name}' is a {get_block(config.name).role}, not a {role}")
