"""Published decoders as configs, exactly (but for Flash-VAED's of LTX-Video), and their designs for other latents.

Turbo-VAED: arXiv 2508.09136. Flash-VAED: arXiv 2602.19161. TAEHV: the code of its author (madebyollin/taehv).
"""

from collections.abc import Sequence
from dataclasses import replace

from blocks import get_block
from blocks.registry import BlockConfig, Option
from search_spaces.config import DecoderConfig, StageConfig
from search_spaces.head_widths import ANY_WIDTH, HeadWidths
from search_spaces.latent_spec import LatentSpec
from search_spaces.stage_groups import Group, group_stages

_HUNYUAN = LatentSpec(channels=16, spatial=8, temporal=4)
_COGVIDEOX = LatentSpec(channels=16, spatial=8, temporal=4)  # the published student gives 4(n-1)+1 frames for any n
_VIDEO_DC_AE = LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False)
_WAN = LatentSpec(channels=16, spatial=8, temporal=4)
_LTX = LatentSpec(channels=128, spatial=32, temporal=8, causal=False)


def _part(name: str, **options: Option) -> BlockConfig:
    return get_block(name).Config(**options)


def turbo_vaed(
    latents: LatentSpec,
    *,
    widths: tuple[int, ...],
    layers: tuple[int, ...],
    temporal_stages: tuple[int, ...],
    patch_size: int,
) -> DecoderConfig:
    """The family of the paper: depthwise-separable at the latents' resolution, dense above, decoupled pixel shuffles.

    Args:
        latents: the latents that it decodes.
        widths: channels of stage 0 (at the latents' resolution) and of each stage that doubles height and width.
        layers: residual blocks per stage; stage 0 is the paper's middle and its first up block in one.
        temporal_stages: indices of the stages that also double the frames.
        patch_size: factor in height and width that is left to the head (1 or 4).
    """
    depthwise = _part("depthwise_separable_conv3d", kernel_size=5)
    stages = [StageConfig(width=widths[0], depth=layers[0], block=depthwise)]
    for index, (width, depth) in enumerate(zip(widths[1:], layers[1:], strict=True), start=1):
        stages.append(
            StageConfig(
                width=width,
                depth=depth,
                block=_part("dense_conv3d", kernel_size=3, activation="relu"),
                upsampler=_part("decoupled_pixel_shuffle3d", projection="dense"),
                temporal_factor=2 if index in temporal_stages else 1,
                spatial_factor=2,
                transition=_part("dense_conv3d", kernel_size=3) if width != widths[index - 1] else None,
            )
        )
    return DecoderConfig(
        latents=latents,
        stem=_part("conv3d_stem"),
        stages=tuple(stages),
        head=_turbo_vaed_head(patch_size),
        temporal_mode="bidirectional",
    )


def _turbo_vaed_head(spatial_factor: int) -> BlockConfig:
    """The head of the paper for what the stages leave to it: plain where that is nothing."""
    return _part("conv3d_head") if spatial_factor == 1 else _part("staged_pixel_shuffle_head")


def _turbo_vaed_4x8x8(latents: LatentSpec) -> DecoderConfig:
    return turbo_vaed(latents, widths=(512, 256, 32, 16), layers=(9, 4, 4, 5), temporal_stages=(1, 2), patch_size=1)


def _flash_vaed_wan() -> DecoderConfig:
    """Wan 2.1's decoder made depthwise low and narrow high.

    Searches know its design without the weights of the norms, with the input added as it is where the width stays and
    after a layer norm where it grows, and with the first frame grown like all others (`adapt`).
    """
    depthwise = _part("depthwise_separable_conv3d", kernel_size=3, weighted=True)
    frame_wise, nearest = _part("residual_conv2d", weighted=True), _part("nearest_conv2plus1d", first="kept")
    return DecoderConfig(
        latents=_WAN,
        stem=_part("conv3d_stem", mixed=True),
        stages=(
            StageConfig(width=384, depth=1, block=depthwise),
            StageConfig(width=384, depth=1, block=_part("frame_attention2d", weighted=True)),
            StageConfig(width=384, depth=4, block=depthwise),
            StageConfig(192, 0, depthwise, nearest, temporal_factor=2, spatial_factor=2),
            StageConfig(width=384, depth=3, block=depthwise),
            StageConfig(24, 3, frame_wise, nearest, temporal_factor=2, spatial_factor=2),
            StageConfig(12, 3, frame_wise, nearest, spatial_factor=2),
        ),
        head=_part("conv3d_head", weighted=True),
    )


def _flash_vaed_ltx() -> DecoderConfig:
    """LTX-Video's decoder made the same way. Differs in the last stage, whose block before the upsampler is 2-D (there:
    3-D), and by a 2-D convolution in the head (there: 3-D).
    """
    depthwise, shuffle = _part("depthwise_separable_conv3d", kernel_size=3), _part("pixel_shuffle3d")
    dense, frame_wise = _part("dense_conv3d"), _part("residual_conv2d")
    return DecoderConfig(
        latents=_LTX,
        stem=_part("conv3d_stem"),
        stages=(
            StageConfig(width=512, depth=7, block=depthwise),
            StageConfig(512, 3, depthwise, shuffle, 2, 2),
            StageConfig(64, 3, dense, shuffle, 2, 2, transition=dense),
            StageConfig(32, 4, frame_wise, shuffle, 2, 2, transition=frame_wise),
        ),
        head=_part("pixel_shuffle_head"),
        temporal_mode="bidirectional",
    )


def _taehv_wan() -> DecoderConfig:
    """TAEHV's taew2_1, for the latents and in the range of frames of Wan.

    - Its latents are at unit scale: a 1x1 convolution before it brings Wan's there.
    - Time grows before the enlargement (there: after it, for more multiply-accumulates and the same result).
    - All frames are decoded and the first three dropped. Searches know its design with frames dropped stage by stage,
      biases everywhere, and latents that are not limited (`adapt`).
    """
    memory, nearest = _part("memory_conv2d"), _part("nearest_conv2d", bias=False)
    return DecoderConfig(
        latents=_WAN,
        stem=_part("conv2d_stem", limited=True),
        stages=(
            StageConfig(width=256, depth=3, block=memory),
            StageConfig(128, 3, memory, nearest, spatial_factor=2),
            StageConfig(64, 3, memory, nearest, temporal_factor=2, spatial_factor=2),
            StageConfig(64, 0, memory, nearest, temporal_factor=2, spatial_factor=2),
        ),
        head=_part("pixel_shuffle_head", norm="none", activation="relu"),
        trim="end",
    )


PRESETS: dict[str, DecoderConfig] = {
    "turbo_vaed_hunyuan": _turbo_vaed_4x8x8(_HUNYUAN),
    "turbo_vaed_cog": _turbo_vaed_4x8x8(_COGVIDEOX),
    "turbo_vaed_dc": turbo_vaed(
        _VIDEO_DC_AE, widths=(512, 256, 128, 64), layers=(7, 3, 3, 4), temporal_stages=(1, 2), patch_size=4
    ),
    "turbo_vaed_ltx": turbo_vaed(
        _LTX, widths=(512, 256, 128, 64), layers=(2, 3, 2, 3), temporal_stages=(1, 2, 3), patch_size=4
    ),
    "flash_vaed_wan": _flash_vaed_wan(),
    "flash_vaed_ltx": _flash_vaed_ltx(),
    "taehv_wan": _taehv_wan(),
}
"""Name -> config at the latents that it was published for. All but `flash_vaed_ltx` are exact."""

_SMALLEST_WIDTH = 16
"""Channels below which no width is divided."""


def adapt(config: DecoderConfig, latents: LatentSpec, width_divisor: int = 1) -> DecoderConfig:
    """The same design for other latents, and all its widths divided by `width_divisor` (not below 16).

    What only published weights need is left out (`DecoderConfig.searched`).

    The head keeps its share of the upsampling as far as the stages can still refine time often enough: stages are left
    out from the output's end, or the head upsamples more. The stages that refine time do so here too, where that is too
    few the first others. The result is causal if the teacher is.

    Raises:
        ValueError: the design has too few stages that upsample for these latents.
    """
    config = config.searched()
    steps, in_time = latents.spatial_doublings, latents.temporal_steps
    first, *doublings = group_stages(config.stages)
    upsampling = max(steps - (config.head_factor.bit_length() - 1), len(in_time))
    upsampling = min(upsampling, len(doublings), steps)
    if upsampling < len(in_time):
        raise ValueError(
            f"{len(doublings)} upsampling stages cannot make {latents.temporal}x in time "
            f"and {latents.spatial}x in space"
        )
    head_factor = latents.spatial // 2**upsampling
    kept = doublings[:upsampling]
    head = _adapt_head(config.head, head_factor)
    before_head = HeadWidths.before(head.name, head_factor)
    stages = [_narrower(stage, width_divisor) for stage in first]
    for index, (group, factor) in enumerate(zip(kept, _temporal_factors(kept, in_time), strict=True), start=1):
        widths = before_head if index == upsampling else ANY_WIDTH
        stages += _adapt_group(group, width_divisor, factor, widths)
    return DecoderConfig(
        latents=latents,
        stem=config.stem,
        stages=tuple(stages),
        head=head,
        temporal_mode="causal" if latents.causal else "bidirectional",
    )


def _temporal_factors(groups: Sequence[Group], steps: Sequence[int]) -> list[int]:
    """Each group's factor in time: the steps go to those that had one, then to the first others."""
    by_preference = sorted(range(len(groups)), key=lambda index: all(s.temporal_factor == 1 for s in groups[index]))
    chosen = sorted(by_preference[: len(steps)])
    return [dict(zip(chosen, steps, strict=True)).get(index, 1) for index in range(len(groups))]


def _adapt_group(group: Group, divisor: int, temporal_factor: int, widths: HeadWidths) -> Group:
    """The group with this factor in time, which a stage for time alone takes if there is one."""
    apart = group[0].spatial_factor == 1
    if apart and temporal_factor == 1:
        group, apart = (replace(group[1], transition=group[0].transition), *group[2:]), False
    factors = [temporal_factor] + [1] * (len(group) - 1)
    stages = [
        replace(
            _narrower(stage, divisor, widths if stage.width == group[-1].width else ANY_WIDTH), temporal_factor=factor
        )
        for stage, factor in zip(group, factors, strict=True)
    ]
    return tuple(stages)


def _adapt_head(head: BlockConfig, factor: int) -> BlockConfig:
    """The same head if it can upsample by this factor, else that of the paper which can."""
    return head if get_block(head.name).supports_factor(factor) else _turbo_vaed_head(factor)


def _narrower(stage: StageConfig, divisor: int, widths: HeadWidths = ANY_WIDTH) -> StageConfig:
    return replace(stage, width=widths.fit(max(stage.width // divisor, min(stage.width, _SMALLEST_WIDTH))))
