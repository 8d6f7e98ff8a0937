"""Quality of a decoder: its frames against the teacher's and against the video, on clips it was not trained on.

Frames are clamped to [-1, 1] before they are judged, the teacher's too, as they are when they are shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from nas.data.settings import Split
from nas.data.targets import TargetBatch, Targets
from nas.evaluation.meter import Meter
from nas.evaluation.results import ClipEvaluation, Evaluation, Quality
from nas.machine.batches import in_batches
from nas.metrics import lpips_off
from search_spaces import LatentSpec

Decode = Callable[[Tensor], Tensor]
"""Any function from latents `(b, c, t, h, w)` to frames `(b, 3, t', h', w')` in [-1, 1]."""


def evaluate(
    decode: Decode,
    targets: Targets,
    split: Split = "test",
    device: torch.device | str = "cpu",
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Judge a decoder on all samples of a split.

    Args:
        decode: the decoder, as a function from latents to frames.
        targets: latents, the teacher's frames for them, and the video.
        split: split of the targets whose samples are judged.
        device: device that latents and reference frames are brought to.
        batch_size: number of samples decoded at once, or fewer where memory runs out.
        progress: called with the number of samples done and of all samples.

    Raises:
        ValueError: the split is empty, or the frames are not finite or not of the teacher's shape.
        DoesNotFitError: memory runs out with one sample at a time.
    """

    def frames_of(batch: TargetBatch) -> Tensor:
        return decode(batch.latents)

    return _evaluate(frames_of, targets, split, device, batch_size, against_teacher=True, progress=progress)


def evaluate_teacher(
    targets: Targets, split: Split = "test", device: torch.device | str = "cpu", batch_size: int = 4
) -> Evaluation:
    """Judge the teacher's frames against the video. They are read from the targets, the teacher does not run.

    Raises:
        ValueError: the split is empty.
    """
    return _evaluate(lambda batch: batch.frames, targets, split, device, batch_size, against_teacher=False)


@torch.inference_mode()
def _evaluate(
    frames_of: Callable[[TargetBatch], Tensor],
    targets: Targets,
    split: Split,
    device: torch.device | str,
    batch_size: int,
    *,
    against_teacher: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    samples = targets.split(split)
    if len(samples) == 0:
        raise ValueError(f"there is nothing to evaluate on: the {split} split of the targets is empty")
    to_teacher: list[Quality] = []
    to_truth: list[Quality] = []

    def judge(indices: list[int]) -> tuple[list[Quality], list[Quality]]:
        batch = samples.batch(indices, device)
        frames = frames_of(batch).float().clamp(-1, 1)
        to_truth = _compare(frames, batch.truth, targets.spec)
        return to_truth, _compare(frames, batch.frames, targets.spec) if against_teacher else []

    for _, (of_truth, of_teacher) in in_batches(judge, len(samples), batch_size, torch.device(device)):
        to_truth += of_truth
        to_teacher += of_teacher
        if progress is not None:
            progress(len(to_truth), len(samples))
    clips = []
    for name in dict.fromkeys(samples.clip_names):
        of_clip = [index for index, owner in enumerate(samples.clip_names) if owner == name]
        teacher = mean_quality([to_teacher[index] for index in of_clip]) if against_teacher else None
        clips.append(ClipEvaluation(name, len(of_clip), teacher, mean_quality([to_truth[index] for index in of_clip])))
    return Evaluation(
        split=split,
        targets=targets.key,
        to_teacher=mean_quality([clip.to_teacher for clip in clips if clip.to_teacher]) if against_teacher else None,
        to_truth=mean_quality([clip.to_truth for clip in clips if clip.to_truth]),
        clips=tuple(clips),
        lpips=lpips_off() or "on",
    )


def _compare(frames: Tensor, reference: Tensor, spec: LatentSpec) -> list[Quality]:
    """The quality of each sample of `(b, 3, t, h, w)`."""
    if frames.shape != reference.shape:
        raise ValueError(f"expected two videos of one shape, got {tuple(frames.shape)} and {tuple(reference.shape)}")
    found = []
    for pair in zip(torch.split(frames, 1), torch.split(reference, 1), strict=True):
        meter = Meter(spec)
        meter.add(*pair)
        found.append(meter.quality())
    return found


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """Mean of every number; None where one of them is missing, but for the parts of a decode: of those that have it."""
    columns: dict[str, list[Any]] = {
        field.name: [getattr(quality, field.name) for quality in qualities] for field in fields(Quality)
    }
    return Quality(**{name: _mean(values, partly=name == "psnr_spans") for name, values in columns.items()})


def _mean(values: list[Any], *, partly: bool = False) -> Any:
    if isinstance(values[0], tuple) and None not in values:
        known = [[each for each in column if each is not None or not partly] for column in zip(*values, strict=True)]
        return tuple(_mean(each) if each else None for each in known)
    return None if None in values else fmean(values)
