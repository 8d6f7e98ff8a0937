"""The meter: the same numbers as the metrics give, however frames are cut, and None for what cannot be known."""

import math
from dataclasses import astuple

import pytest
import torch
from torch import Tensor

from nas import metrics
from nas.evaluation import meter as meters
from nas.evaluation.meter import Meter
from nas.evaluation.quality import mean_quality
from nas.evaluation.results import Quality
from nas.metrics import VIDEO_RANGE
from search_spaces import LatentSpec
from tests.metrics.test_complaints import chunk_seam, decoded, frame_repeated, moving, tile_seam

SPEC = LatentSpec(channels=4, spatial=8, temporal=4)


def judged(prediction: Tensor, reference: Tensor, chunks: tuple[int, ...] = (), spec: LatentSpec = SPEC) -> Quality:
    meter = Meter(spec)
    for pair in zip(
        *(torch.split(each, list(chunks) or each.shape[2], dim=2) for each in (prediction, reference)), strict=True
    ):
        meter.add(*pair)
    assert meter.frames == prediction.shape[2]
    return meter.quality()


def flat(quality: Quality) -> list[float]:
    """All numbers; what is missing as -1."""
    values = (value if isinstance(value, tuple) else (value,) for value in astuple(quality))
    return [-1.0 if value is None else value for each in values for value in each]


def test_every_number_is_that_of_its_metric() -> None:
    y = moving()
    x = tile_seam(frame_repeated(decoded(y)))
    found = judged(x, y)
    per_frame = metrics.psnr_per_frame(x.clamp(-1, 1), y, VIDEO_RANGE)[0].tolist()
    assert found.psnr == pytest.approx(sum(per_frame) / 9) and found.psnr_first == pytest.approx(per_frame[0])
    assert found.psnr_rest == pytest.approx(sum(per_frame[1:]) / 8)
    assert found.psnr_spans is not None and found.psnr_spans[0] == pytest.approx(found.psnr)
    assert found.psnr_spans[1:] == (None, None, None)
    x = x.clamp(-1, 1)
    mean, std = (each[0].mean(dim=0).tolist() for each in metrics.channel_drift(x, y, VIDEO_RANGE))
    assert found.colour_mean == pytest.approx(mean) and found.colour_std == pytest.approx(std)
    assert found.ssim == pytest.approx(metrics.ssim(x, y, VIDEO_RANGE).item())
    assert found.sharpness == pytest.approx(metrics.sharpness(x, y, VIDEO_RANGE).item())
    assert found.detail_error == pytest.approx(metrics.detail_error(x, y, VIDEO_RANGE).item())
    assert found.delta_e == pytest.approx(metrics.delta_e(x, y, VIDEO_RANGE).item())
    assert found.flicker == pytest.approx(metrics.frame_difference_error(x, y, VIDEO_RANGE).mean().item())
    assert found.stuck_frames == pytest.approx(1 / 8)
    assert found.tile_seams == pytest.approx(metrics.tile_seams(x, y, VIDEO_RANGE, 8).item())
    assert found.chunk_seams == pytest.approx(metrics.chunk_seams(x, y, VIDEO_RANGE, [1, 5]).item())


@pytest.mark.parametrize("chunks", [(1, 4, 4), (1,) * 9, (8, 1)])
def test_how_frames_are_cut_changes_nothing(chunks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    y = moving()
    x = chunk_seam(decoded(y))
    expected = flat(judged(x, y))
    assert flat(judged(x, y, chunks)) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(meters, "_PIXELS", 2 * 64 * 96)
    assert flat(judged(x, y, chunks)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("spec", "frames", "seen"),
    [
        (SPEC, 9, True),
        (LatentSpec(channels=4, spatial=8, temporal=4, frame_rule="leading_if_odd"), 9, True),
        (LatentSpec(channels=4, spatial=8, temporal=4, frame_rule="leading_if_odd"), 8, False),
        (LatentSpec(channels=4, spatial=8, temporal=4, frame_rule="multiple"), 8, False),
        (LatentSpec(channels=4, spatial=8, temporal=8), 9, False),
    ],
)
def test_chunks_begin_where_the_frame_rule_says(spec: LatentSpec, frames: int, seen: bool) -> None:
    """The seam is at frame 5."""
    y = moving()
    found = judged(chunk_seam(y)[:, :, :frames], y[:, :, :frames], spec=spec).chunk_seams
    assert found is not None and (found > 20) == seen


def test_a_single_frame_and_images_have_no_time() -> None:
    y = moving(1)
    found = judged(decoded(y), y)
    assert (found.flicker, found.stuck_frames, found.chunk_seams, found.psnr_rest) == (None, None, None, None)
    image = LatentSpec(channels=4, spatial=8, temporal=1)
    assert judged(moving(2), moving(2), spec=image).chunk_seams is None


def test_drift_is_seen_in_the_parts_of_a_long_decode() -> None:
    y = torch.zeros(1, 3, 130, 16, 16)
    x = y + 0.001 * torch.arange(130).view(1, 1, -1, 1, 1)
    spans = judged(x, y, (65, 65)).psnr_spans
    assert spans is not None and None not in spans and sorted(spans, reverse=True) == list(spans)  # type: ignore[type-var]
    assert spans[3] == pytest.approx(20 * math.log10(2 / 0.1255), abs=0.1)


def test_frames_that_cannot_be_judged_are_refused() -> None:
    y = moving(2)
    with pytest.raises(ValueError, match="of one shape"):
        Meter(SPEC).add(y[:, :, :1], y)
    with pytest.raises(ValueError, match="prediction"):
        Meter(SPEC).add(y * math.nan, y)
    with pytest.raises(ValueError, match="no frame was judged"):
        Meter(SPEC).quality()


def test_means_keep_what_is_known_of_parts() -> None:
    y = torch.zeros(1, 3, 20, 16, 16)
    long, short = judged(y + 0.1, y), judged(y[:, :, :5] + 0.2, y[:, :, :5])
    mean = mean_quality([long, short])
    assert mean.psnr == pytest.approx((long.psnr + short.psnr) / 2)
    assert mean.psnr_spans is not None and mean.psnr_spans[2:] == (None, None)
    assert mean.psnr_spans[:2] == pytest.approx([mean.psnr, long.psnr])
    assert mean.colour_mean == pytest.approx([0.15 * 127.5] * 3, abs=1e-3)
    assert mean_quality([long, judged(moving(1), moving(1))]).flicker is None
