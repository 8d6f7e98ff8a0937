"""SearchSpace: which decoders a study may propose for given latents, and the walk that proposes one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import Any, Protocol

from blocks import BlockConfig, get_block
from blocks.registry import Option
from search_spaces.config import DecoderConfig, StageConfig
from search_spaces.latent_spec import LatentSpec
from search_spaces.stage_groups import Group, group_stages


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
    """Where the stages leave upsampling to the head."""
    plain_heads: tuple[str, ...]
    """Where they leave nothing."""
    middles: tuple[str, ...] = ()
    """What may come once after the first block; a decoder without is always offered, too."""
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
        stages = self._suggest_first(chooser, _width_unit(0, upsampling, head_factor))
        for index in range(1, upsampling + 1):
            unit, factor = _width_unit(index, upsampling, head_factor), in_time.get(index, 1)
            stages += self._suggest_doubling(chooser, index, unit, factor, stages[-1].width)
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
            ends = _count_parts(self.stems) * _count_parts(self._heads(head_factor)) * shortcuts
            for layout in _temporal_layouts(upsampling, latents):
                in_time = layout.split(",")
                total += ends * prod(
                    len(self._widths(index, _width_unit(index, upsampling, head_factor)))
                    * self._stage_size(index, str(index) in in_time)
                    for index in range(upsampling + 1)
                )
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

    def _heads(self, head_factor: int) -> tuple[str, ...]:
        return self.plain_heads if head_factor == 1 else self.heads

    def _suggest_first(self, chooser: Chooser, unit: int) -> Group:
        """At the latents' resolution: blocks, with or without a middle after the first."""
        stage = self._suggest_blocks(chooser, 0, unit)
        if not self.middles or not chooser.suggest_categorical("has_middle", [False, True]):
            return (stage,)
        middle = _suggest_part(chooser, "middle", self.middles)
        group = (replace(stage, depth=1), StageConfig(width=stage.width, depth=1, block=middle))
        return group if stage.depth == 1 else (*group, replace(stage, depth=stage.depth - 1))

    def _suggest_doubling(
        self, chooser: Chooser, index: int, unit: int, temporal_factor: int, width_before: int
    ) -> Group:
        """One step up in resolution. The width is changed by the upsampler, by a block before it or by one after it."""
        last, prefix = self._suggest_blocks(chooser, index, unit), f"stage{index}"
        change = chooser.suggest_categorical(_change_name(prefix, last.depth), _changes(last.depth))
        upsampler = _suggest_part(chooser, f"{prefix}.upsampler", self.upsamplers, prefix)
        apart = temporal_factor > 1 and chooser.suggest_categorical(f"{prefix}.apart", [False, True])
        after = change == "block"
        # As in Wan's decoder the upsampler halves the width where a block sets it afterwards.
        scaled = replace(last, width=width_before // 2, depth=0) if after else last
        transition = get_block(last.block.name).Config() if change == "transition" else None
        finer = replace(scaled, upsampler=upsampler, spatial_factor=2)
        if apart:
            in_time = replace(scaled, depth=0, upsampler=upsampler, temporal_factor=temporal_factor)
            group: Group = replace(in_time, transition=transition), finer
        else:
            group = (replace(finer, temporal_factor=temporal_factor, transition=transition),)
        return (*group, last) if after else group

    def _suggest_blocks(self, chooser: Chooser, index: int, unit: int) -> StageConfig:
        level, prefix = self._level(index), f"stage{index}"
        return StageConfig(
            block=_suggest_part(chooser, f"{prefix}.block", level.blocks, prefix),
            width=_choose_int(chooser, _width_name(index, unit), self._widths(index, unit)),
            depth=_choose_int(chooser, f"{prefix}.depth", level.depths),
        )

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

    def _stage_size(self, index: int, refines_time: bool) -> int:
        """Walks through one stage, widths aside."""
        level = self._level(index)
        blocks = _count_parts(level.blocks)
        if index == 0:
            return len(level.depths) * blocks * (1 + _count_parts(self.middles))
        changes = sum(len(_changes(depth)) for depth in level.depths)
        return changes * blocks * _count_parts(self.upsamplers) * (2 if refines_time else 1)


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
    first, *doublings = group_stages(config.stages)
    upsampling = len(doublings)
    values: dict[str, Option] = {
        "upsampling_stages": upsampling,
        _temporal_name(upsampling): ",".join(
            str(index) for index, group in enumerate(doublings, start=1) if any(s.temporal_factor > 1 for s in group)
        ),
        "has_middle": len(first) > 1,
        **(_describe_part("middle", first[1].block) if len(first) > 1 else {}),
        **_describe_part("stem", config.stem),
        **_describe_part(_head_name(config.head_factor), config.head),
        "has_shortcut": config.shortcut is not None,
    }
    if config.shortcut is not None:
        values |= _describe_part("shortcut", config.shortcut)
    middle = first[1:2]
    for index, group in enumerate((first, *doublings)):
        prefix, last = f"stage{index}", group[0] if index == 0 else group[-1]
        depth = sum(stage.depth for stage in group if stage not in middle) if index == 0 else last.depth
        unit = _width_unit(index, upsampling, config.head_factor)
        values |= {_width_name(index, unit): last.width, f"{prefix}.depth": depth}
        values |= _describe_part(f"{prefix}.block", last.block, prefix)
        if index > 0:
            values |= _describe_doubling(group, prefix)
    return values


def _describe_doubling(group: Group, prefix: str) -> dict[str, Option]:
    start, last = group[0], group[-1]
    change = "transition" if start.transition else "upsampler" if last.upsampler else "block"
    assert start.upsampler is not None
    return {
        _change_name(prefix, last.depth): change,
        f"{prefix}.apart": start.spatial_factor == 1,
        **_describe_part(f"{prefix}.upsampler", start.upsampler, prefix),
    }


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


def _changes(depth: int) -> list[str]:
    """What may change the width."""
    return ["upsampler", "transition", "block"] if depth else ["upsampler", "transition"]


def _change_name(prefix: str, depth: int) -> str:
    return f"{prefix}.change" if depth else f"{prefix}.change.shallow"


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
