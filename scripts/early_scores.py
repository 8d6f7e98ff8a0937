"""What scripts share that ask how well early scores of distillations rank decoders by their last ones."""

import argparse
from pathlib import Path

from nas.benchmark.design import distill_settings
from nas.data.targets import Targets
from nas.distillation.distill import distill
from search_spaces import Decoder, DecoderConfig


def make_parser(description: str | None, counted: str, default: int) -> argparse.ArgumentParser:
    """Arguments of all of them: how many, how long, and where what is done is kept.

    Args:
        description: of the script.
        counted: option that says how many there are of what the script is about.
        default: of that option.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{counted}", type=int, default=default, metavar="N", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="of a whole one (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file of what is done")
    return parser


def has_wide_shortcut(config: DecoderConfig) -> bool:
    """Whether it has a 3x3 linear shortcut: among decoders that have, ranks are not those of shortcuts."""
    return getattr(config.shortcut, "kernel_size", 0) == 3


def distil(
    decoder: Decoder, targets: Targets, steps: int, until: int, *, fresh: bool = True
) -> list[tuple[int, float]]:
    """Steps and scores of the first `until` steps of a distillation of `steps`; the decoder is trained in place."""
    result = distill(decoder, targets, distill_settings(steps), device="cpu", until=until, fresh=fresh)
    return [(step, score) for step, score in result.curve]
