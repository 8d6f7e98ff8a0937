"""Whether a model gets worse along a clip: a long decode against fresh ones that begin where its parts do.

    python -m scripts.measure_drift MODEL --clips DIR

Of each clip 49 frames are decoded at once, and frames 17 to 33 and 33 to 49 as clips of their own. The score of a part
is PSNR against the teacher's frames of the same decode. Linear patches, which have no memory, show what is no drift:
later latents may be harder by themselves.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor

from nas.data.clips import Clip, read_frames, to_video
from nas.data.make_targets import open_targets
from nas.data.splits import open_clips, open_test_clips
from nas.distillation.recipes import CPU
from nas.evaluation.baselines import linear_patches
from nas.metrics import VIDEO_RANGE, psnr_per_frame
from nas.model.folder import load_model
from nas.teachers import Teacher, load_teacher

FRAMES, PART = 49, 16
PARTS = ((0, FRAMES), (16, 33), (32, FRAMES))
"""First frame and end of the long decode and of the fresh ones; the first frame of each is left out of its score."""

Sample = list[tuple[Tensor, Tensor]]
"""Latents and the teacher's frames of each of `PARTS`."""


@torch.inference_mode()
def sample_of(teacher: Teacher, clip: Clip, crop: int) -> Sample:
    """The central crop of a clip."""
    video = to_video(read_frames(clip, 0, FRAMES), crop)
    top, left = ((side - crop) // 2 for side in video.shape[3:])
    video = video[..., top : top + crop, left : left + crop]
    encoded = [teacher.encode(video[:, :, first:end]) for first, end in PARTS]
    return [(latents, teacher.decode(latents)) for latents in encoded]


@torch.inference_mode()
def scores_of(decode: Callable[[Tensor], Tensor], sample: Sample) -> list[float]:
    """Frames 2-17 of the long decode, then 18-33 of it and of the fresh one, then 34-49 likewise."""
    decoded = [(decode(latents).clamp(-1, 1), frames.clamp(-1, 1)) for latents, frames in sample]
    long, *fresh = (psnr_per_frame(ours, theirs, VIDEO_RANGE)[0, 1:] for ours, theirs in decoded)
    first, *later = torch.split(long, PART)
    return [float(part.mean()) for part in (first, later[0], fresh[0], later[1], fresh[1])]


def main() -> None:
    """Print one row for each model, and one for linear patches."""
    arguments = make_parser().parse_args()
    teacher = load_teacher(arguments.teacher)
    clips = open_test_clips(arguments.clips, FRAMES, FRAMES).test
    samples = [sample_of(teacher, clip, arguments.crop) for clip in clips]
    targets = open_targets(teacher, open_clips(None, FRAMES), CPU.short.settings(teacher))
    decoders: dict[str, Callable[[Tensor], Tensor]] = {
        **{path.name: load_model(path).decoder.eval() for path in arguments.models},
        "linear patches": linear_patches(targets),
    }
    print(f"| {len(clips)} clips | frames 2-17 | 18-33, minus fresh | 34-49, minus fresh |\n|---|---|---|---|")
    for name, decode in decoders.items():
        rows = [scores_of(decode, sample) for sample in samples]
        cells = [f"{fmean(row[0] for row in rows):.2f}"]
        for place in (1, 3):
            gaps = [row[place] - row[place + 1] for row in rows]
            error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
            cells.append(f"{fmean(row[place] for row in rows):.2f}, {fmean(gaps):+.2f} ± {error:.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


def make_parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folders of finished models")
    parser.add_argument("--clips", type=Path, metavar="DIR", help="videos of at least 49 frames (default: embedded)")
    parser.add_argument("--teacher", default="wan-tiny", help="default: %(default)s")
    parser.add_argument("--crop", type=int, default=80, help="height and width in pixels (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
