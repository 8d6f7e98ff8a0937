"""Image metrics for videos, each `metric(prediction, target, value_range)`: PSNR, SSIM, LPIPS."""

from nas.metrics.image import (
    PSNR_CEILING,
    LpipsNet,
    build_lpips,
    lpips,
    lpips_available,
    lpips_network,
    lpips_off,
    lpips_per_frame,
    psnr,
    psnr_per_frame,
    psnr_pooled,
    ssim,
    ssim_per_frame,
)

__all__ = [
    "PSNR_CEILING",
    "LpipsNet",
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
