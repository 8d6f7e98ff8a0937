"""Metrics of videos, each `metric(prediction, target, value_range)`: PSNR, SSIM, LPIPS, and what people complain of."""

from nas.metrics.colour import channel_drift, delta_e, delta_e_per_frame
from nas.metrics.frames import (
    PSNR_CEILING,
    VIDEO_RANGE,
    ValueRange,
    psnr,
    psnr_per_frame,
    psnr_pooled,
    ssim,
    ssim_per_frame,
)
from nas.metrics.frechet import frechet_distance
from nas.metrics.perceptual import (
    LpipsNet,
    build_lpips,
    lpips,
    lpips_available,
    lpips_network,
    lpips_off,
    lpips_per_frame,
)
from nas.metrics.seams import chunk_seams, frame_steps, line_steps, tile_seams, worst_step
from nas.metrics.sharpness import (
    detail_error,
    energy_ratio,
    error_ratio,
    high_band_energies,
    sharpness,
    strength_errors,
)
from nas.metrics.temporal import frame_difference_error, stuck_frames

__all__ = [
    "PSNR_CEILING",
    "VIDEO_RANGE",
    "LpipsNet",
    "ValueRange",
    "build_lpips",
    "channel_drift",
    "chunk_seams",
    "delta_e",
    "delta_e_per_frame",
    "detail_error",
    "energy_ratio",
    "error_ratio",
    "frame_difference_error",
    "frame_steps",
    "frechet_distance",
    "high_band_energies",
    "line_steps",
    "lpips",
    "lpips_available",
    "lpips_network",
    "lpips_off",
    "lpips_per_frame",
    "psnr",
    "psnr_per_frame",
    "psnr_pooled",
    "sharpness",
    "ssim",
    "ssim_per_frame",
    "strength_errors",
    "stuck_frames",
    "tile_seams",
    "worst_step",
]
