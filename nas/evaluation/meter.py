"""Meter: what frames are like against a reference, added up chunk by chunk, so that a decode may be of any length."""

from statistics import fmean

import torch
from torch import Tensor

from nas.evaluation.results import SPANS, Quality
from nas.metrics import (
    VIDEO_RANGE,
    LpipsNet,
    channel_drift,
    delta_e_per_frame,
    energy_ratio,
    error_ratio,
    frame_difference_error,
    frame_steps,
    high_band_energies,
    line_steps,
    lpips_available,
    lpips_per_frame,
    psnr_per_frame,
    ssim_per_frame,
    strength_errors,
    stuck_frames,
    worst_step,
)
from search_spaces import LatentSpec

_PIXELS = 2**21
"""Pixels that are judged at once, or those of one frame: in double precision some dozen copies of them are made."""
_NETS: tuple[LpipsNet, ...] = ("alex", "vgg")


class Meter:
    """Judges the frames of one decode, `(1, 3, t, h, w)`, in the order of time; how they are cut changes nothing.

    It keeps some numbers of every frame and the last frame itself. Values are clamped to [-1, 1], as they are when they
    are shown.

    Args:
        spec: of the latents: where chunks and tiles may meet.
    """

    def __init__(self, spec: LatentSpec) -> None:
        self._spec = spec
        self._nets = tuple(net for net in _NETS if lpips_available(net))
        self._per_frame: dict[str, list[Tensor]] = {}
        self._lines: tuple[Tensor, Tensor] | None = None
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def frames(self) -> int:
        """Number of frames that were judged."""
        return sum(each.shape[1] for each in self._per_frame.get("psnr", []))

    @torch.inference_mode()
    def add(self, prediction: Tensor, reference: Tensor) -> None:
        """Judge the next frames.

        Raises:
            ValueError: they are not finite, or the two are not of one shape.
        """
        at_once = max(1, _PIXELS // max(1, prediction.shape[-1] * prediction.shape[-2]))
        if prediction.shape != reference.shape:
            raise ValueError(
                f"expected two videos of one shape, got {tuple(prediction.shape)} and {tuple(reference.shape)}"
            )
        for first in range(0, prediction.shape[2], at_once):
            pieces = (each[:, :, first : first + at_once].float().clamp(-1, 1) for each in (prediction, reference))
            self._add(*pieces)

    def _add(self, x: Tensor, y: Tensor) -> None:
        last = self._last or (x[:, :, :0], y[:, :, :0])
        joined = [torch.cat(pair, dim=2) for pair in ((last[0], x), (last[1], y))]
        found = {"psnr": psnr_per_frame(x, y, VIDEO_RANGE), "ssim": ssim_per_frame(x, y, VIDEO_RANGE)}
        found |= {f"lpips {net}": lpips_per_frame(x, y, VIDEO_RANGE, net) for net in self._nets}
        found |= dict(zip(("energy", "energy of the reference"), high_band_energies(x, y, VIDEO_RANGE), strict=True))
        found |= dict(zip(("detail error", "detail"), strength_errors(x, y, VIDEO_RANGE), strict=True))
        found |= dict(zip(("mean", "std"), channel_drift(x, y, VIDEO_RANGE), strict=True))
        found["delta e"] = delta_e_per_frame(x, y, VIDEO_RANGE)
        found["flicker"] = frame_difference_error(joined[0], joined[1], VIDEO_RANGE)
        found["stuck"] = stuck_frames(joined[0], joined[1], VIDEO_RANGE).float()
        found["steps"] = frame_steps(joined[0], joined[1], VIDEO_RANGE)
        for name, values in found.items():
            self._per_frame.setdefault(name, []).append(values.cpu())
        lines = [each * x.shape[2] for each in line_steps(x, y, VIDEO_RANGE)]
        self._lines = (lines[0], lines[1]) if self._lines is None else _sum(self._lines, lines)
        self._last = x[:, :, -1:].clone(), y[:, :, -1:].clone()

    def quality(self) -> Quality:
        """What all frames so far are like.

        Raises:
            ValueError: there is none.
        """
        if self._lines is None:
            raise ValueError("no frame was judged")
        found = {name: torch.cat(pieces, dim=1) for name, pieces in self._per_frame.items()}
        psnr, ssim = found["psnr"][0].tolist(), found["ssim"][0].tolist()
        starts = self._starts(len(psnr))
        period = self._spec.spatial
        lines = [each / self.frames for each in self._lines]
        seams = [worst_step(each, range(period - 1, each.shape[1], period)).item() for each in lines]
        return Quality(
            psnr=fmean(psnr),
            psnr_first=psnr[0],
            psnr_rest=fmean(psnr[1:]) if psnr[1:] else None,
            ssim=fmean(ssim),
            ssim_first=ssim[0],
            ssim_rest=fmean(ssim[1:]) if ssim[1:] else None,
            lpips=_mean(found.get("lpips alex")),
            lpips_vgg=_mean(found.get("lpips vgg")),
            psnr_spans=tuple(fmean(span) if (span := psnr[first - 1 : last]) else None for first, last in SPANS),
            sharpness=energy_ratio(found["energy"], found["energy of the reference"]).item(),
            detail_error=error_ratio(found["detail error"], found["detail"]).item(),
            colour_mean=tuple(found["mean"][0].mean(dim=0).tolist()),
            colour_std=tuple(found["std"][0].mean(dim=0).tolist()),
            delta_e=_mean(found["delta e"]),
            flicker=_mean(found["flicker"]),
            stuck_frames=_mean(found["stuck"]),
            tile_seams=max(seams),
            chunk_seams=worst_step(found["steps"], [start - 1 for start in starts]).item() if starts else None,
        )

    def _starts(self, num_frames: int) -> list[int]:
        """Frames at which a latent begins, but for the first."""
        temporal = self._spec.temporal
        leading = num_frames % temporal if self._spec.may_drop_leading else 0
        return [] if temporal == 1 else list(range(leading or temporal, num_frames, temporal))


def _mean(values: Tensor | None) -> float | None:
    return None if values is None or values.numel() == 0 else values.mean().item()


def _sum(first: tuple[Tensor, Tensor], second: list[Tensor]) -> tuple[Tensor, Tensor]:
    return first[0] + second[0], first[1] + second[1]
