"""Published decoders as configs (Turbo-VAED, arXiv 2508.09136), and the same designs for other latents."""

from dataclasses import replace

from blocks import get_block
from blocks.registry import BlockConfig
from search_spaces.config import DecoderConfig, StageConfig
from search_spaces.latent_spec import LatentSpec

_HUNYUAN = LatentSpec(channels=16, spatial=8, temporal=4)
_COGVIDEOX = LatentSpec(channels=16, spatial=8, temporal=4)  # the published student gives 4(n-1)+1 frames for any n
_VIDEO_DC_AE = LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False)
_LTX = LatentSpec(channels=128, spatial=32, temporal=8, causal=False)


def _part(name: str, **options: int | str) -> BlockConfig:
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
        latents: what it decodes.
        widths: of stage 0 (at the latents' resolution) and of each stage that doubles height and width.
        layers: residual blocks per stage; stage 0 is the paper's middle and its first up block in one.
        temporal_stages: indices of the stages that also double the frames.
        patch_size: what is left to the head (1 or 4).
    """
    depthwise = _part("depthwise_separable_conv3d", kernel_size=5)
    stages = [StageConfig(width=widths[0], depth=layers[0], block=depthwise)]
    for index, (width, depth) in enumerate(zip(widths[1:], layers[1:], strict=True), start=1):
        stages.append(
            StageConfig(
                width=width,
                depth=depth,
                block=_part("dense_conv3d", kernel_size=3, activation="relu"),
                upsampler=_part("decoupled_pixel_shuffle3d", expansion="dense"),
                temporal_factor=2 if index in temporal_stages else 1,
                spatial_factor=2,
                transition=_part("dense_conv3d", kernel_size=3) if width != widths[index - 1] else None,
            )
        )
    return DecoderConfig(
        latents=latents,
        stem=_part("conv3d_stem"),
        stages=tuple(stages),
        head=_part("conv3d_head") if patch_size == 1 else _part("staged_pixel_shuffle_head"),
        temporal_mode="bidirectional",
    )


def _turbo_vaed_4x8x8(latents: LatentSpec) -> DecoderConfig:
    return turbo_vaed(latents, widths=(512, 256, 32, 16), layers=(9, 4, 4, 5), temporal_stages=(1, 2), patch_size=1)


PRESETS: dict[str, DecoderConfig] = {
    "turbo_vaed_hunyuan": _turbo_vaed_4x8x8(_HUNYUAN),
    "turbo_vaed_cog": _turbo_vaed_4x8x8(_COGVIDEOX),
    "turbo_vaed_dc": turbo_vaed(
        _VIDEO_DC_AE, widths=(512, 256, 128, 64), layers=(7, 3, 3, 4), temporal_stages=(1, 2), patch_size=4
    ),
    "turbo_vaed_ltx": turbo_vaed(
        _LTX, widths=(512, 256, 128, 64), layers=(2, 3, 2, 3), temporal_stages=(1, 2, 3), patch_size=4
    ),
}
"""The decoders of the paper, exactly: name -> config at the latents that they were published for."""

_SMALLEST_WIDTH = 16


def adapt(config: DecoderConfig, latents: LatentSpec, width_divisor: int = 1) -> DecoderConfig:
    """The same design for other latents, and all its widths divided by `width_divisor` (not below 16).

    The head keeps its share of the upsampling as far as the stages can still refine time often enough: stages are left
    out from the output's end, or the head upsamples more. The first upsampling stages refine time, too.
    The result is causal if the teacher is.
    """
    steps, in_time = latents.spatial_doublings, latents.temporal_steps
    published = [stage for stage in config.stages if stage.upsampler is not None]
    upsampling = max(steps - (config.head_factor.bit_length() - 1), len(in_time))
    upsampling = min(upsampling, len(published), steps)
    if upsampling < len(in_time):
        raise ValueError(
            f"{len(published)} upsampling stages cannot make {latents.temporal}x in time "
            f"and {latents.spatial}x in space"
        )
    head_factor = latents.spatial // 2**upsampling
    stages = [_narrower(config.stages[0], width_divisor, 1)]
    for index, stage in enumerate(published[:upsampling]):
        # A head that shuffles pixels needs four channels at least where it ends.
        least = 4 * head_factor**2 if index == upsampling - 1 and head_factor > 1 else 1
        stages.append(_narrower(stage, width_divisor, in_time[index] if index < len(in_time) else 1, least))
    return DecoderConfig(
        latents=latents,
        stem=config.stem,
        stages=tuple(stages),
        head=_part("conv3d_head") if head_factor == 1 else _part("staged_pixel_shuffle_head"),
        temporal_mode="causal" if latents.causal else "bidirectional",
    )


def _narrower(stage: StageConfig, divisor: int, temporal_factor: int, least: int = 1) -> StageConfig:
    width = max(stage.width // divisor, min(stage.width, _SMALLEST_WIDTH), least)
    return replace(stage, width=width, temporal_factor=temporal_factor)
