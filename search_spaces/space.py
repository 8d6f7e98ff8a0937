"""SearchSpace: which decoders a study may propose for given latents, and the walk that proposes one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod

from blocks import BlockConfig, get_block
from blocks.registry import Option
from search_spaces.choices import Chooser, Recorder, choose, choose_int, count_parts, describe_part, suggest_part
from search_spaces.config import DecoderConfig, StageConfig
from search_spaces.head_widths import ANY_WIDTH, HeadWidths
from search_spaces.latent_spec import LatentSpec
from search_spaces.stage_groups import Group, group_stages


@dataclass(frozen=True)
class Level:
    """Choices for the stages at one resolution. Level 0 is the latents' resolution, each next one twice as fine."""

    blocks: tuple[str, ...]
    """Registered blocks that a stage may repeat."""
    widths: tuple[int, ...]
    """Channels that a stage may have."""
    depths: tuple[int, ...]
    """Numbers of blocks that a stage may have."""


@dataclass(frozen=True)
class SearchSpace:
    """A family of decoders. Every walk through it gives a decoder that builds and has the teacher's output geometry."""

    name: str
    """Name by which commands know the space."""
    description: str
    """One line for users that says what the space holds."""
    stems: tuple[str, ...]
    """Registered stems that a decoder may have."""
    levels: tuple[Level, ...]
    """Choices for the stages by resolution, the latents' first; the last level serves all finer resolutions, too."""
    upsamplers: tuple[str, ...]
    """Registered upsamplers that a stage may have."""
    heads: tuple[str, ...]
    """Registered heads for decoders whose stages leave upsampling to the head."""
    plain_heads: tuple[str, ...]
    """Registered heads for decoders whose stages leave none."""
    middles: tuple[str, ...] = ()
    """Registered blocks that may come once after the first block; a decoder without is always offered, too."""
    shortcuts: tuple[str, ...] = ()
    """Registered linear shortcuts that a decoder may have; a decoder without is always offered, too."""
    largest_head_factor: int = 4
    """Largest factor in height and width that the stages may leave to the head, a power of two."""

    def suggest(self, chooser: Chooser, latents: LatentSpec) -> DecoderConfig:
        """Walk through the space: `chooser` decides every choice, infeasible combinations are never offered.

        Parameters are named after what they set: `stage1.width`, `stage1.block`, `stage1.dense_conv3d.kernel_size`.
        Where what is offered depends on an earlier choice, so does the name: in Optuna a name has one set of choices.
        """
        upsampling = choose_int(chooser, "upsampling_stages", self._upsampling_counts(latents))
        layout = str(choose(chooser, _temporal_name(upsampling), _temporal_layouts(upsampling, latents)))
        in_time = dict(zip((int(index) for index in layout.split(",") if index), latents.temporal_steps, strict=True))
        head_factor = latents.spatial // 2**upsampling
        heads = self._heads(upsampling, head_factor)
        head = suggest_part(chooser, self._head_name(heads, head_factor), heads)
        stages = self._suggest_first(chooser)
        for index in range(1, upsampling + 1):
            widths = HeadWidths.before(head.name, head_factor) if index == upsampling else ANY_WIDTH
            stages += self._suggest_doubling(chooser, index, widths, in_time.get(index, 1), stages[-1].width)
        return DecoderConfig(
            latents=latents,
            stem=suggest_part(chooser, "stem", self.stems),
            stages=tuple(stages),
            head=head,
            temporal_mode="causal" if latents.causal else "bidirectional",
            shortcut=self._suggest_shortcut(chooser),
        )

    def params(self, config: DecoderConfig) -> dict[str, Option]:
        """The parameters by which `suggest` gives `config`.

        Raises:
            ValueError: the config is no point of this space (names the first choice that is missing).
        """
        recorder = Recorder(self.name, self._describe(config))
        if self.suggest(recorder, config.latents) != config:
            raise ValueError(f"{config.summary()} is not in the space '{self.name}'")
        return recorder.used

    def size(self, latents: LatentSpec) -> int:
        """Number of walks through the space for these latents."""
        total, shortcuts = 0, 1 + count_parts(self.shortcuts)
        for upsampling in self._upsampling_counts(latents):
            head_factor = latents.spatial // 2**upsampling
            last = sum(
                count_parts((head,)) * len(self._widths(upsampling, HeadWidths.before(head, head_factor)))
                for head in self._heads(upsampling, head_factor)
            )
            widths = last * prod(len(self._widths(index, ANY_WIDTH)) for index in range(upsampling))
            for layout in _temporal_layouts(upsampling, latents):
                in_time = layout.split(",")
                stages = prod(self._stage_size(index, str(index) in in_time) for index in range(upsampling + 1))
                total += count_parts(self.stems) * shortcuts * widths * stages
        return total

    def _level(self, index: int) -> Level:
        return self.levels[min(index, len(self.levels) - 1)]

    def _upsampling_counts(self, latents: LatentSpec) -> list[int]:
        steps = latents.spatial_doublings
        fewest = max(1, len(latents.temporal_steps), steps - (self.largest_head_factor.bit_length() - 1))
        if fewest > steps:
            raise ValueError(f"{latents.temporal}x in time needs more stages than {latents.spatial}x in space gives")
        counts = range(fewest, steps + 1)
        return [n for n in counts if self._heads(n, latents.spatial // 2**n)]

    def _widths(self, index: int, widths: HeadWidths) -> list[int]:
        return [width for width in self._level(index).widths if widths.fit(width) == width]

    def _heads(self, upsampling: int, head_factor: int) -> list[str]:
        """Heads that some width of the last stage fits."""
        heads = self.plain_heads if head_factor == 1 else self.heads
        return [head for head in heads if self._widths(upsampling, HeadWidths.before(head, head_factor))]

    def _head_name(self, heads: Sequence[str], head_factor: int) -> str:
        if head_factor == 1:
            return "plain_head"
        return "head" if len(heads) == len(self.heads) else f"head.{'.'.join(heads)}"

    def _suggest_first(self, chooser: Chooser) -> Group:
        """The stages at the latents' resolution: blocks, with or without a middle after the first."""
        stage = self._suggest_blocks(chooser, 0, ANY_WIDTH)
        if not self.middles or not choose(chooser, "has_middle", [False, True]):
            return (stage,)
        middle = suggest_part(chooser, "middle", self.middles)
        group = (replace(stage, depth=1), StageConfig(width=stage.width, depth=1, block=middle))
        return group if stage.depth == 1 else (*group, replace(stage, depth=stage.depth - 1))

    def _suggest_doubling(
        self, chooser: Chooser, index: int, widths: HeadWidths, temporal_factor: int, width_before: int
    ) -> Group:
        """One step up in resolution. The width is changed by the upsampler, by a block before it or by one after it."""
        last, prefix = self._suggest_blocks(chooser, index, widths), f"stage{index}"
        change = choose(chooser, _change_name(prefix, last.depth), _changes(last.depth))
        upsampler = suggest_part(chooser, f"{prefix}.upsampler", self.upsamplers, prefix)
        apart = temporal_factor > 1 and choose(chooser, f"{prefix}.apart", [False, True])
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

    def _suggest_blocks(self, chooser: Chooser, index: int, widths: HeadWidths) -> StageConfig:
        level, prefix = self._level(index), f"stage{index}"
        return StageConfig(
            block=suggest_part(chooser, f"{prefix}.block", level.blocks, prefix),
            width=choose_int(chooser, _width_name(index, widths), self._widths(index, widths)),
            depth=choose_int(chooser, f"{prefix}.depth", level.depths),
        )

    def _suggest_shortcut(self, chooser: Chooser) -> BlockConfig | None:
        has_one = self.shortcuts and choose(chooser, "has_shortcut", [True, False])
        return suggest_part(chooser, "shortcut", self.shortcuts) if has_one else None

    def _stage_size(self, index: int, refines_time: bool) -> int:
        """Walks through one stage, widths aside."""
        level = self._level(index)
        blocks = count_parts(level.blocks)
        if index == 0:
            return len(level.depths) * blocks * (1 + count_parts(self.middles))
        changes = sum(len(_changes(depth)) for depth in level.depths)
        return changes * blocks * count_parts(self.upsamplers) * (2 if refines_time else 1)

    def _describe(self, config: DecoderConfig) -> dict[str, Option]:
        """Every choice that a config embodies, by the names that `suggest` uses."""
        first, *doublings = group_stages(config.stages)
        upsampling = len(doublings)
        head_name = self._head_name(self._heads(upsampling, config.head_factor), config.head_factor)
        values: dict[str, Option] = {
            "upsampling_stages": upsampling,
            _temporal_name(upsampling): ",".join(
                str(index)
                for index, group in enumerate(doublings, start=1)
                if any(s.temporal_factor > 1 for s in group)
            ),
            "has_middle": len(first) > 1,
            **(describe_part("middle", first[1].block) if len(first) > 1 else {}),
            **describe_part("stem", config.stem),
            **describe_part(head_name, config.head),
            "has_shortcut": config.shortcut is not None,
        }
        if config.shortcut is not None:
            values |= describe_part("shortcut", config.shortcut)
        middle = first[1:2]
        for index, group in enumerate((first, *doublings)):
            prefix, last = f"stage{index}", group[0] if index == 0 else group[-1]
            depth = sum(stage.depth for stage in group if stage not in middle) if index == 0 else last.depth
            before_head = HeadWidths.before(config.head.name, config.head_factor)
            widths = before_head if index == upsampling else ANY_WIDTH
            values |= {_width_name(index, widths): last.width, f"{prefix}.depth": depth}
            values |= describe_part(f"{prefix}.block", last.block, prefix)
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
        **describe_part(f"{prefix}.upsampler", start.upsampler, prefix),
    }


def _width_name(index: int, widths: HeadWidths) -> str:
    return f"stage{index}.width" if widths == ANY_WIDTH else f"stage{index}.width.by{widths.multiple}"


def _changes(depth: int) -> list[str]:
    """Parts that may change the width of a stage with `depth` blocks."""
    return ["upsampler", "transition", "block"] if depth else ["upsampler", "transition"]


def _change_name(prefix: str, depth: int) -> str:
    return f"{prefix}.change" if depth else f"{prefix}.change.shallow"


def _temporal_name(upsampling: int) -> str:
    return f"temporal_stages.of{upsampling}"


def _temporal_layouts(upsampling: int, latents: LatentSpec) -> list[str]:
    """Choices of the upsampling stages that refine time, as their indices: "1,2", "1,3", ..."""
    steps = len(latents.temporal_steps)
    return [",".join(map(str, stages)) for stages in combinations(range(1, upsampling + 1), steps)]
