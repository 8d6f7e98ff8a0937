"""Whether a child should begin with its parent's weights: how well early scores rank children, with them and without.

    OMP_NUM_THREADS=1 python -m scripts.measure_inheritance --parents 6 --children 3 --steps 400 --out inheritance.json

Parents are drawn at random with a 3x3 linear shortcut and distilled. Each child differs from its parent in one or two
choices. It is distilled twice: from fresh weights to the end, which says how good it is, and beginning with whatever
weights of its parent have the same name and shape. What is done is kept in --out, and the same command goes on.
"""

import random
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr

from nas.benchmark.design import step_gmacs, target_settings
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.splits import open_clips
from nas.data.targets import Targets
from nas.distillation.initialise import build, initialise
from nas.machine.files import read_json, write_json
from nas.proposals.choosers import Follower, Thrifty
from nas.proposals.evolution import mutate
from nas.proposals.history import Known
from nas.proposals.proposer import Setting
from nas.teachers import load_teacher
from scripts.early_scores import distil, has_wide_shortcut, make_parser
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec

LOOKED_AT = (0.05, 0.1, 0.25, 0.5)
"""Shares of a whole distillation after which a child is looked at."""
KINDS = {"fresh": "from fresh weights", "heir": "from the parent's"}
"""What a child may begin with, and what tables say of it."""
MOST_GMACS = 2.0
"""Billions of multiply-accumulates of the forward pass of one training sample, at most."""


def main() -> None:
    """Distil what is missing, then print the table."""
    parser = make_parser(__doc__, "parents", 6)
    parser.add_argument("--children", type=int, default=3, metavar="N", help="of each (default: %(default)s)")
    arguments = parser.parse_args()
    teacher = load_teacher("wan-tiny")
    crops = target_settings(teacher)
    targets = open_targets(teacher, open_clips(None, crops.num_frames), crops)
    rows: list[dict[str, Any]] = read_json(arguments.out) if arguments.out.exists() else []
    families = draw_families(teacher.spec, crops, arguments.parents, arguments.children)
    for number, (parent, children) in enumerate(families):
        if any(row["parent"] == number for row in rows):
            continue
        trained = build(parent, 0)
        score = distil(trained, targets, arguments.steps, arguments.steps)[-1][1]
        for child in children:
            fresh, heir = build(child, 0), build(child, 0)
            share = inherit(heir, trained, targets)
            rows.append(
                {
                    "parent": number,
                    "parent_db": score,
                    "summary": child.summary(),
                    "inherited": share,
                    "fresh": distil(fresh, targets, arguments.steps, arguments.steps),
                    "heir": distil(heir, targets, arguments.steps, int(max(LOOKED_AT) * arguments.steps), fresh=False),
                }
            )
            print(f"{number}: {rows[-1]['fresh'][-1][1]:.2f} dB, {share:.0%} inherited, {child.summary()}", flush=True)
        write_json(arguments.out, rows)
    print_table(rows, arguments.steps)


def draw_families(
    latents: LatentSpec, crops: TargetSettings, parents: int, children: int
) -> Iterator[tuple[DecoderConfig, list[DecoderConfig]]]:
    """Parents and their children; always the same ones."""
    setting, source = Setting(SEARCH_SPACES["hybrid"], latents, None), random.Random(0)
    for number in range(parents):
        parent = None
        while parent is None:
            follower = Follower({}, Thrifty(source, thrift=2))
            config = setting.space.suggest(follower, latents)
            if is_wanted(config, crops):
                parent = Known(number, config, follower.used, 0.0)
        found: dict[str, DecoderConfig] = {}
        while len(found) < children:
            child, _ = mutate(setting, parent, source)
            if is_wanted(child, crops) and child.digest() != parent.config.digest():
                found[child.digest()] = child
        yield parent.config, list(found.values())


def is_wanted(config: DecoderConfig, crops: TargetSettings) -> bool:
    """Whether it has a 3x3 shortcut and is small enough."""
    return has_wide_shortcut(config) and step_gmacs(config, crops) < MOST_GMACS


def inherit(child: Decoder, parent: Decoder, targets: Targets) -> float:
    """Begin with the parent's weights wherever name and shape are the same; the share of the child's that are."""
    initialise(child, targets.splits["train"])
    theirs, mine = parent.state_dict(), child.state_dict()
    taken = {name: theirs[name] for name, own in mine.items() if name in theirs and theirs[name].shape == own.shape}
    child.load_state_dict(mine | taken)
    return float(sum(each.numel() for each in taken.values()) / sum(each.numel() for each in mine.values()))


def print_table(rows: list[dict[str, Any]], steps: int) -> None:
    """Early scores, and their rank correlation with those of whole distillations from fresh weights."""
    parents = [row["parent_db"] for row in rows]
    final = [row["fresh"][-1][1] for row in rows]
    gain = [after - before for after, before in zip(final, parents, strict=True)]
    print(f"{len(rows)} children; parents' final scores rank them with Spearman {spearmanr(parents, final)[0]:.2f}")
    print(f"| after | {' | '.join(f'{kind}: dB | Spearman | of the gain' for kind in KINDS.values())} |")
    print(f"|---|{'---|' * 3 * len(KINDS)}")
    for share in LOOKED_AT:
        cells = []
        for kind in KINDS:
            early = [dict(map(tuple, row[kind]))[round(share * steps)] for row in rows]
            gained = [now - before for now, before in zip(early, parents, strict=True)]
            cells += [fmean(early), spearmanr(early, final)[0], spearmanr(gained, gain)[0]]
        print(f"| {round(share * steps)} steps | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    print(f"| {steps} steps | {fmean(final):.2f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
