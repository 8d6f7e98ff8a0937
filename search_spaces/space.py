"""SearchSpace: which decoders a study may propose for given latents, and the walk that proposes one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, prod
from typing import Any, Protocol

from blocks import BlockConfig, get_block
from blocks.registry import Option
from search_spaces.config import DecoderConfig, StageConfig
from search_spaces.latent_spec import LatentSpec


class Chooser(Protocol):
    """What decides: an `optuna.Trial`, or anything else with this method."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`, which are options (`blocks.registry.Option`)."""


@dataclass(frozen=True)
class Level:
    """What stages at one resolution may be made of. Level 0 is the latents' resolution, each next one twice as fine."""

    blocks: tuple[str, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True)
class SearchSpace:
    """A family of decoders. Every walk through it gives a decoder that builds and has the teacher's output geometry."""

    name: str
    description: str
    """One line for users."""
    stems: tuple[str, ...]
    levels: tuple[Level, ...]
    """By resolution; the last one serves all finer ones too."""
    upsamplers: tuple[str, ...]
    heads: tuple[str, ...]
    """For what the stages leave of the upsampling; "conv3d_head" only where nothing is left."""
    shortcuts: tuple[str, ...] = ()
    """What may run beside the whole decoder; a decoder without is always offered, too."""
    largest_head_factor: int = 4

    def suggest(self, chooser: Chooser, latents: LatentSpec) -> DecoderConfig:
        """Walk through the space: `chooser` decides every choice, infeasible combinations are never offered.

        Parameters are named after what they set: `stage1.width`, `stage1.block`, `stage1.dense_conv3d.kernel_size`.
        Where what is offered depends on an earlier choice, so does the name: in Optuna a name has one set of choices.
        """
        upsampling = _choose_int(chooser, "upsampling_stages", self._upsampling_counts(latents))
        layout = str(chooser.suggest_categorical(_temporal_name(upsampling), _temporal_layouts(upsampling, latents)))
        in_time = dict(zip((int(index) for index in layout.split(",") if index), latents.temporal_steps, strict=True))
        head_factor = latents.spatial // 2**upsampling
        stages = []
        for index in range(upsampling + 1):
            unit = _width_unit(index, upsampling, head_factor)
            stages.append(self._suggest_stage(chooser, index, unit, in_time.get(index, 1)))
        return DecoderConfig(
            latents=latents,
            stem=_suggest_part(chooser, "stem", self.stems),
            stages=tuple(stages),
            head=_suggest_part(chooser, _head_name(head_factor), self._heads(head_factor)),
            temporal_mode="causal" if latents.causal else "bidirectional",
            shortcut=self._suggest_shortcut(chooser),
        )

    def params(self, config: DecoderConfig) -> dict[str, Option]:
        """The parameters by which `suggest` gives `config`.

        Raises:
            ValueError: the config is no point of this space (names the first choice that is missing).
        """
        recorder = _Recorder(self.name, _describe(config))
        if self.suggest(recorder, config.latents) != config:
            raise ValueError(f"{config.summary()} is not in the space '{self.name}'")
        return recorder.used

    def size(self, latents: LatentSpec) -> int:
        """Number of walks through the space."""
        total, shortcuts = 0, 1 + _count_parts(self.shortcuts)
        for upsampling in self._upsampling_counts(latents):
            head_factor = latents.spatial // 2**upsampling
            stages = (
                len(self._widths(index, _width_unit(index, upsampling, head_factor))) * self._stage_size(index)
                for index in range(upsampling + 1)
            )
            ends = _count_parts(self.stems) * _count_parts(self._heads(head_factor))
            total += comb(upsampling, len(latents.temporal_steps)) * ends * prod(stages) * shortcuts
        return total

    def _level(self, index: int) -> Level:
        return self.levels[min(index, len(self.levels) - 1)]

    def _upsampling_counts(self, latents: LatentSpec) -> list[int]:
        steps = latents.spatial_doublings
        fewest = max(1, len(latents.temporal_steps), steps - (self.largest_head_factor.bit_length() - 1))
        if fewest > steps:
            raise ValueError(f"{latents.temporal}x in time needs more stages than {latents.spatial}x in space gives")
        counts = range(fewest, steps + 1)
        return [n for n in counts if self._widths(n, _width_unit(n, n, latents.spatial // 2**n))]

    def _widths(self, index: int, unit: int) -> list[int]:
        # Four channels at least are left where a head's last shuffle ends: fewer cannot make three colours.
        least = 4 * unit if unit > 1 else 1
        return [width for width in self._level(index).widths if width % unit == 0 and width >= least]

    def _heads(self, head_factor: int) -> list[str]:
        return [name for name in self.heads if (name == "conv3d_head") == (head_factor == 1)]

    def _suggest_shortcut(self, chooser: Chooser) -> BlockConfig | None:
        has_one = self.shortcuts and chooser.suggest_categorical("has_shortcut", [True, False])
        return _suggest_part(chooser, "shortcut", self.shortcuts) if has_one else None

    def _suggest_stage(self, chooser: Chooser, index: int, unit: int, temporal_factor: int) -> StageConfig:
        level, prefix = self._level(index), f"stage{index}"
        block = _suggest_part(chooser, f"{prefix}.block", level.blocks, prefix)
        stage = StageConfig(
            width=_choose_int(chooser, _width_name(index, unit), self._widths(index, unit)),
            depth=_choose_int(chooser, f"{prefix}.depth", level.depths),
            block=block,
        )
        if index == 0:
            return stage
        transition = chooser.suggest_categorical(f"{prefix}.transition", [False, True])
        return StageConfig(
            width=stage.width,
            depth=stage.depth,
            block=block,
            upsampler=_suggest_part(chooser, f"{prefix}.upsampler", self.upsamplers, prefix),
            temporal_factor=temporal_factor,
            spatial_factor=2,
            transition=get_block(block.name).Config() if transition else None,
        )

    def _stage_size(self, index: int) -> int:
        level = self._level(index)
        blocks = len(level.depths) * _count_parts(level.blocks)
        return blocks if index == 0 else blocks * 2 * _count_parts(self.upsamplers)


class _Recorder:
    """A chooser that follows given values and refuses those that are not offered."""

    def __init__(self, space: str, values: dict[str, Option]) -> None:
        self._space = space
        self._values = values
        self.used: dict[str, Option] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Option], /) -> Option:
        value = self._values.get(name)
        if value is None or value not in choices:
            raise ValueError(f"{name} = {value!r} is not in the space '{self._space}': it offers {list(choices)}")
        self.used[name] = value
        return value


def _describe(config: DecoderConfig) -> dict[str, Option]:
    """Every choice that a config embodies, by the names that `suggest` uses."""
    upsampling = len(config.stages) - 1
    values: dict[str, Option] = {
        "upsampling_stages": upsampling,
        _temporal_name(upsampling): ",".join(
            str(i) for i, stage in enumerate(config.stages) if stage.temporal_factor > 1
        ),
        **_describe_part("stem", config.stem),
        **_describe_part(_head_name(config.head_factor), config.head),
        "has_shortcut": config.shortcut is not None,
    }
    if config.shortcut is not None:
        values |= _describe_part("shortcut", config.shortcut)
    for index, stage in enumerate(config.stages):
        prefix = f"stage{index}"
        values |= {
            _width_name(index, _width_unit(index, upsampling, config.head_factor)): stage.width,
            f"{prefix}.depth": stage.depth,
            f"{prefix}.transition": stage.transition is not None,
            **_describe_part(f"{prefix}.block", stage.block, prefix),
        }
        if stage.upsampler is not None:
            values |= _describe_part(f"{prefix}.upsampler", stage.upsampler, prefix)
    return values


def _describe_part(name: str, config: BlockConfig, prefix: str | None = None) -> dict[str, Option]:
    options = {key: value for key, value in config.to_dict().items() if key != "name"}
    return {name: config.name} | {f"{prefix or name}.{config.name}.{key}": value for key, value in options.items()}


def _suggest_part(chooser: Chooser, name: str, parts: Sequence[str], prefix: str | None = None) -> BlockConfig:
    part = str(chooser.suggest_categorical(name, list(parts)))
    config = get_block(part).Config
    options = {
        option: chooser.suggest_categorical(f"{prefix or name}.{part}.{option}", list(choices))
        for option, choices in config.choices().items()
    }
    return config(**options)


def _choose_int(chooser: Chooser, name: str, choices: Sequence[int]) -> int:
    return int(chooser.suggest_categorical(name, list(choices)))


def _width_unit(index: int, upsampling: int, head_factor: int) -> int:
    """What a width must be a multiple of: before a head that shuffles pixels, the square of its factor."""
    return head_factor**2 if index == upsampling else 1


def _width_name(index: int, unit: int) -> str:
    return f"stage{index}.width" if unit == 1 else f"stage{index}.width.by{unit}"


def _head_name(head_factor: int) -> str:
    return "head" if head_factor > 1 else "plain_head"


def _temporal_name(upsampling: int) -> str:
    return f"temporal_stages.of{upsampling}"


def _temporal_layouts(upsampling: int, latents: LatentSpec) -> list[str]:
    """Which of the upsampling stages refine time, the largest step first: "1,2", "1,3", ..."""
    steps = len(latents.temporal_steps)
    return [",".join(map(str, stages)) for stages in combinations(range(1, upsampling + 1), steps)]


def _count_parts(parts: Sequence[str]) -> int:
    return sum(prod(len(choices) for choices in get_block(part).Config.choices().values()) for part in parts)
