"""One number per clip for every measure, their means with intervals, and the differences between models."""

from collections.abc import Callable, Sequence

from nas.evaluation.confidence import Interval, interval, paired_difference
from nas.evaluation.results import SPANS, ClipEvaluation, Quality

Reading = Callable[[Quality], float | None]
"""A number of a clip; None where it was not measured."""


def _largest(values: tuple[float, ...] | None) -> float | None:
    return None if values is None else max(map(abs, values))


def _of_span(index: int) -> Reading:
    return lambda quality: quality.psnr_spans[index] if quality.psnr_spans else None


def span_name(index: int) -> str:
    """ "psnr_18_49"; the last one, which has no end, "psnr_122_on"."""
    first, last = SPANS[index]
    return f"psnr_{first}_{last or 'on'}"


MEASURES: dict[str, Reading] = {
    "psnr": lambda quality: quality.psnr,
    "psnr_first": lambda quality: quality.psnr_first,
    "psnr_rest": lambda quality: quality.psnr_rest,
    **{span_name(index): _of_span(index) for index in range(len(SPANS))},
    "ssim": lambda quality: quality.ssim,
    "lpips": lambda quality: quality.lpips,
    "lpips_vgg": lambda quality: quality.lpips_vgg,
    "sharpness": lambda quality: quality.sharpness,
    "detail_error": lambda quality: quality.detail_error,
    "colour_mean": lambda quality: _largest(quality.colour_mean),
    "colour_std": lambda quality: _largest(quality.colour_std),
    "delta_e": lambda quality: quality.delta_e,
    "flicker": lambda quality: quality.flicker,
    "stuck_frames": lambda quality: quality.stuck_frames,
    "tile_seams": lambda quality: quality.tile_seams,
    "chunk_seams": lambda quality: quality.chunk_seams,
}
"""Name -> the number of a clip. Of what R, G and B have, the one that is furthest off counts."""


def readings(qualities: Sequence[Quality | None], measure: str) -> list[float | None]:
    """The number of every clip."""
    return [None if quality is None else MEASURES[measure](quality) for quality in qualities]


def intervals(qualities: Sequence[Quality | None]) -> dict[str, Interval]:
    """The mean over clips of every measure, of the clips that have it; what no clip has is left out."""
    known = {name: [each for each in readings(qualities, name) if each is not None] for name in MEASURES}
    return {name: interval(values) for name, values in known.items() if values}


def differences(qualities: Sequence[Quality | None], others: Sequence[Quality | None]) -> dict[str, Interval]:
    """The mean of every measure minus that of another model, clip by clip; of the clips on which both have it."""
    found = {}
    for name in MEASURES:
        pairs = zip(readings(qualities, name), readings(others, name), strict=True)
        known = [(value, other) for value, other in pairs if value is not None and other is not None]
        if known:
            found[name] = paired_difference([value for value, _ in known], [other for _, other in known])
    return found


def relative_flicker(clips: Sequence[ClipEvaluation], teacher: Sequence[ClipEvaluation]) -> Interval | None:
    """Flicker against the video over the teacher's, clip by clip: 1 is as calm; None where there is no video."""
    ratios = []
    for ours, theirs in zip(clips, teacher, strict=True):
        a, b = (each.to_truth.flicker if each.to_truth else None for each in (ours, theirs))
        if a is not None and b:
            ratios.append(a / b)
    return interval(ratios) if ratios else None
