"""What the targets of many clips take: crops, disk, and work of the teacher. Computed as the commands do, no weights.

python -m scripts.size_of_targets wan --clips 200 20000
"""

import argparse
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.data.clips import Clip
from nas.data.live_samples import SCORED
from nas.data.make_targets import affordable
from nas.data.one_crop import bytes_per_crop
from nas.data.order import START, USES
from nas.data.plan import plan_of, total_crops
from nas.data.settings import MAX_BYTES, TargetSettings
from nas.data.splits import ClipSet
from nas.distillation.phases import load_phases
from nas.distillation.recipes import GPU
from nas.teachers import Teacher, list_releases, without_weights

TMACS_PER_SECOND = 50
"""10^12 multiply-accumulates in a second that a data-centre GPU is taken to do in such convolutions. An estimate."""


def main() -> None:
    """Print one row per set of targets."""
    arguments = make_parser().parse_args()
    release = next(each for each in list_releases() if each.name == arguments.teacher)
    teacher = without_weights(release)
    print("| clips | for | crops asked for | crops made | bytes of a crop | disk | teacher | time |")
    print("|---|---|---|---|---|---|---|---|")
    phases = [(f"finalize: {phase.name}", phase.crops, phase) for phase in load_phases(GPU.full).phases]
    for count in arguments.clips:
        for name, crops, phase in (("search", GPU.short, None), *phases, ("judging", GPU.judging, None)):
            settings = crops.settings(teacher)
            asked, size = plan_of(clips_of(count), settings), bytes_per_crop(teacher, settings)
            wanted = total_crops(asked)
            if phase is not None and wanted * size > MAX_BYTES:
                # Made again where the cache has lost them: of a set that is not much larger, each several times.
                scored = min(SCORED, len(clips_of(count).score) * settings.score_crops)
                samples = phase.steps * phase.distillation(0).batch_size
                made, disk = scored + START + samples // USES, MAX_BYTES
            else:
                made = total_crops(affordable(asked, 0, size, MAX_BYTES, crops.most, lambda line: None))
                disk = made * size
            work = made * tmacs(teacher, settings)
            cells = (
                f"{count:,}",
                name,
                f"{wanted:,}",
                f"{made:,}",
                f"{size / 1e6:.2f} MB",
                f"{disk / 1e9:.1f} GB",
                f"{work:,.0f} TMAC",
                f"{work / TMACS_PER_SECOND / 60:.1f} min",
            )
            print(f"| {' | '.join(cells)} |")


def clips_of(count: int) -> ClipSet:
    """So many long clips, a fifth of them for scores and a fifth for tests."""
    clips = tuple(Clip(Path(f"{number}.mp4"), 0, 1000, str(number)) for number in range(count))
    fifth = count // 5
    return ClipSet(clips[2 * fifth :], clips[:fifth], clips[fifth : 2 * fifth], "computed")


def tmacs(teacher: Teacher, settings: TargetSettings) -> float:
    """10^12 multiply-accumulates for one crop: it is encoded and decoded."""
    video = torch.empty(1, 3, settings.num_frames, settings.crop, settings.crop, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher.run_decoder(teacher.skeleton, teacher.run_encoder(teacher.skeleton, video))
    return float(counter.get_total_flops()) / 2e12


def make_parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a published teacher")
    parser.add_argument("--clips", type=int, nargs="+", required=True, help="numbers of clips")
    return parser


if __name__ == "__main__":
    main()
