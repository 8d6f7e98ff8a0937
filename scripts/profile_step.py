"""What the time of a step of a distillation goes to, on a CPU.

    python -m scripts.profile_step MODEL --steps 100

The decoder of a finished model is distilled anew for some steps of each phase of the default recipe. Goal: at least 90%
is the student's own forward and backward.
"""

import argparse
import cProfile
import pstats
from dataclasses import replace
from pathlib import Path

import torch

from nas.distillation.distill import distill
from nas.distillation.initialise import build
from nas.distillation.phases import load_phases
from nas.distillation.recipes import CPU
from nas.model.folder import load_model
from nas.teachers import load_teacher
from scripts.ablate_losses import targets_of

PARTS = {
    "forward and loss": ("preparation.py", "losses"),
    "backward": ("_tensor.py", "backward"),
    "clipping, optimizer and average": ("distill.py", "_update"),
    "waiting for data": ("feed.py", "batch"),
}
"""What is told apart, each by the file and the name of the function that does it."""


def main() -> None:
    """Print one row for each phase."""
    arguments = make_parser().parse_args()
    teacher, config = load_teacher(arguments.teacher), load_model(arguments.model).decoder.config
    print(f"| phase | s per step | {' | '.join(PARTS)} | the rest | a score, in steps |")
    print(f"|---|---|---|---|{'---|' * len(PARTS)}")
    for phase in load_phases(CPU.full).phases:
        targets, settings = targets_of(teacher, phase), replace(phase, steps=arguments.steps).distillation(0)
        profile = cProfile.Profile()
        profile.runcall(distill, build(config, 0), targets, settings, device=torch.device("cpu"))
        scores = seconds_of(profile, ("distill.py", "score_student"))
        seconds = seconds_of(profile, ("distill.py", "_train")) - scores
        shares = [seconds_of(profile, part) / seconds for part in PARTS.values()]
        cells = [f"{seconds / settings.steps:.3f}", *(f"{share:.1%}" for share in (*shares, 1 - sum(shares)))]
        score = scores / (settings.steps // settings.report_every) / (seconds / settings.steps)
        print(f"| {phase.name} | {' | '.join(cells)} | {score:.1f} |", flush=True)


def seconds_of(profile: cProfile.Profile, function: tuple[str, str]) -> float:
    """Time in a function and in all that it calls."""
    rows = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = [row[3] for (file, _, name), row in rows.items() if (Path(file).name, name) == function]
    return float(sum(found))


def make_parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder of a finished model, whose decoder it is about"
    )
    parser.add_argument("--teacher", default="wan-tiny", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="of each phase (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
