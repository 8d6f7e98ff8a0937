"""Distil one decoder, whoever drew it, by the phases of a recipe, and judge it as finalize judges finished models.

    OMP_NUM_THREADS=1 python -m scripts.distil_config benchmark/larger.json --recipe long --out larger

The decoder is a config as `DecoderConfig.to_dict` writes it; the teacher is wan-tiny, the clips are the embedded ones.
What is done is kept in --out, and the same command goes on.
"""

import argparse
from pathlib import Path

import torch

from nas.data.make_targets import open_targets
from nas.data.splits import open_clips
from nas.distillation.distill import distill
from nas.distillation.initialise import build
from nas.distillation.phases import load_phases
from nas.distillation.recipes import CPU
from nas.evaluation.quality import evaluate
from nas.latency import list_operations
from nas.machine.files import read_json
from nas.teachers import load_teacher
from scripts.ablate_losses import COLUMNS, DEVICE, targets_of
from search_spaces import DecoderConfig, build_skeleton

SIZE = (17, 720, 1280)
"""Frames, height and width that multiply-accumulates are counted for."""


def main() -> None:
    """Distil what is missing, and print what the decoder is worth after each phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the decoder, a JSON file")
    parser.add_argument("--recipe", default="long", metavar="NAME|FILE", help="its phases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of what is done")
    arguments = parser.parse_args()
    config, teacher = DecoderConfig.from_dict(read_json(arguments.config)), load_teacher("wan-tiny")
    shape = (1, *config.latents.latent_shape(*SIZE))
    macs = sum(each.macs for each in list_operations(build_skeleton(config), shape)) / SIZE[0]
    print(f"{config.summary()}: {macs / 1e9:.1f} GMACs per frame of 720x1280")
    judging = CPU.judging.settings(teacher)
    unseen = open_targets(teacher, open_clips(None, judging.num_frames), judging, max_crops=CPU.judging.most)
    decoder = build(config, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, phase in enumerate(load_phases(arguments.recipe).phases):
        checkpoint = arguments.out / f"phase{number}-seed{arguments.seed}.pt"
        settings, targets = phase.distillation(arguments.seed), targets_of(teacher, phase)
        result = distill(decoder, targets, settings, device=DEVICE, checkpoint=checkpoint, fresh=number == 0)
        found = evaluate(result.decoder, unseen)
        print(f"after '{phase.name}', {phase.steps} steps, {result.seconds / 60:.0f} min:", flush=True)
        for whose, quality in (("the teacher", found.to_teacher), ("the video", found.to_truth)):
            if quality is not None:
                numbers = ", ".join(f"{getattr(quality, name):.3f} {title}" for name, title in COLUMNS.items())
                print(f"  to {whose}: {numbers}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
