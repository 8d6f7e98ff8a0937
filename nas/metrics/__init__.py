"""Metrics of videos, each `metric(prediction, target, value_range)`: PSNR, SSIM, LPIPS."""

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
from nas.metrics.perceptual import (
    LpipsNet,
    build_lpips,
    lpips,
    lpips_available,
    lpips_network,
    lpips_off,
    lpips_per_frame,
)

__all__ = [
    "PSNR_CEILING",
    "VIDEO_RANGE",
    "LpipsNet",
    "ValueRange",
    "build_lpips",
    "lpips",
    "lpips_available",
    "lpips_network",
    "lpips_off",
    "lpips_per_frame",
    "psnr",
    "psnr_per_frame",
    "psnr_pooled",
    "ssim",
    "ssim_per_frame",
]
