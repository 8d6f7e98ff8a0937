"""What each ingredient of a full distillation is worth: the default recipe with one of them changed at a time.

    python -m scripts.ablate_losses MODEL --steps 640 --seeds 0 1 2 --out losses

The decoder of a finished model is distilled anew from its first weights, with every variant and seed, for the same
number of steps, and judged as finished models are: against the teacher, on clips that nothing was trained or chosen on.
What is done is kept in --out, and the same command goes on.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from nas.data.make_targets import open_targets
from nas.data.splits import open_clips
from nas.data.targets import Targets
from nas.distillation.distill import distill
from nas.distillation.initialise import build
from nas.distillation.phases import Phase, Phases, load_phases
from nas.distillation.recipes import CPU
from nas.evaluation.quality import evaluate
from nas.machine.files import read_json, write_json
from nas.model.folder import load_model
from nas.teachers import Teacher, load_teacher
from nas.terminal.console import make_console, say
from search_spaces import DecoderConfig

DEVICE = torch.device("cpu")
COLUMNS = {
    "psnr": "dB",
    "ssim": "SSIM",
    "sharpness": "sharpness",
    "detail_error": "detail error",
    "flicker": "flicker",
    "tile_seams": "tile seams",
}


def everywhere(**changed: Any) -> Callable[[Phases], Phases]:
    """The same settings in all phases."""
    return lambda phases: Phases(
        tuple(replace(phase, settings=phase.settings | changed) for phase in phases.phases),
    )


def within(number: int, **changed: Any) -> Callable[[Phases], Phases]:
    """Settings of one phase."""

    def change(phases: Phases) -> Phases:
        found = list(phases.phases)
        found[number] = replace(found[number], settings=found[number].settings | changed)
        return Phases(tuple(found))

    return change


def only_first(phases: Phases) -> Phases:
    """The first phase, as long as all."""
    return Phases((replace(phases.phases[0], steps=phases.steps),))


VARIANTS: dict[str, Callable[[Phases], Phases]] = {
    "as it is": lambda phases: phases,
    "no features": within(0, feature_weight=0.0),
    "features at weight 1": within(0, feature_weight=1.0),
    "no details": everywhere(detail_weight=0.0),
    "details from the first step on": everywhere(detail_weight=4.0),
    "differences of frames, too": everywhere(motion_weight=1.0),
    "the video instead of the teacher": everywhere(teacher_weight=0.0, truth_weight=1.0),
    "no average of the weights": everywhere(ema_decay=0.0),
    "no longer clips": only_first,
}


def run(config: DecoderConfig, phases: Phases, training: Sequence[Targets], unseen: Targets, seed: int) -> Any:
    """Distil in phases, and judge; JSON primitives."""
    decoder = build(config, seed)
    for number, (phase, targets) in enumerate(zip(phases.phases, training, strict=True)):
        distill(decoder, targets, phase.distillation(seed), device=DEVICE, fresh=number == 0)
    quality = evaluate(decoder.eval(), unseen).to_teacher
    assert quality is not None
    return {name: getattr(quality, name) for name in COLUMNS}


def main() -> None:
    """Run what is missing, and print one row for each variant."""
    arguments = make_parser().parse_args()
    console, teacher, clips = make_console(), load_teacher(arguments.teacher), open_clips(None, 49)
    config = load_model(arguments.model).decoder.config
    unseen = open_targets(teacher, clips, CPU.judging.settings(teacher), max_crops=CPU.judging.most)
    rows: dict[str, list[Any]] = {}
    for seed in arguments.seeds:
        for name, change in VARIANTS.items():
            phases = change(load_phases(CPU.full).scaled(arguments.steps))
            file = arguments.out / f"{config.digest()}-{arguments.steps}-{seed}-{name.replace(' ', '_')}.json"
            if not file.exists():
                training = [targets_of(teacher, phase) for phase in phases.phases]
                write_json(file, run(config, phases, training, unseen, seed))
            rows.setdefault(name, []).append(read_json(file))
            say(console, "done", f"{name}, seed {seed}: {rows[name][-1]}")
    print(f"| {len(arguments.seeds)} seeds, {arguments.steps} steps | {' | '.join(COLUMNS.values())} |")
    print(f"|---|{'---|' * len(COLUMNS)}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(cell([each[column] for each in found]) for column in COLUMNS)} |")


def targets_of(teacher: Teacher, phase: Phase) -> Targets:
    """What a phase trains on, of the embedded clips."""
    crops = phase.crops.settings(teacher)
    return open_targets(teacher, open_clips(None, crops.num_frames), crops, max_crops=phase.crops.most)


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    digits = 3 if max(values) < 1 else 2
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def make_parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder of a finished model, whose decoder it is about"
    )
    parser.add_argument("--teacher", default="wan-tiny", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=640, metavar="N", help="of all phases (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--out", type=Path, default=Path("losses"), metavar="DIR", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    main()
