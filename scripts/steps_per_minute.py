"""How many steps of short distillations this machine does in a minute, as searches do them and as PyTorch would.

    python -m scripts.steps_per_minute --decoders 6 --seconds 12

As searches do: one process of one thread for each core, convolutions in training forms. As PyTorch would: one process
with a thread for each core that waits spinning, the plain convolutions. Each on the machine as it is, and beside one
process that is always busy. Everything in turn, decoder by decoder; on a quiet machine.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import geometric_mean
from unittest.mock import patch

import torch

from nas.benchmark.design import target_settings
from nas.benchmark.table import CurveTable, DecoderRow
from nas.data.make_targets import open_targets
from nas.data.splits import open_clips
from nas.distillation.distill import Progress, distill
from nas.distillation.initialise import build
from nas.distillation.recipes import CPU
from nas.teachers import load_teacher
from search_spaces import DecoderConfig

TABLE = Path(__file__).parents[1] / "benchmark" / "curves.json"
CORES = len(os.sched_getaffinity(0))
WAYS = {"as PyTorch would": (1, CORES, True), "as searches do": (CORES, 1, False)}
"""Processes, threads of each, and whether convolutions are plain."""
_WARM = 3
"""Steps that are not counted."""


class _Over(Exception):
    """The time is over."""


def count_steps(row: DecoderRow, seconds: float, plain: bool) -> float:
    """Steps per minute of one distillation in this process."""
    teacher = load_teacher("wan-tiny")
    crops = target_settings(teacher)
    targets = open_targets(teacher, open_clips(None, crops.num_frames), crops)
    began, steps = 0.0, 0

    def report(state: Progress) -> None:
        nonlocal began, steps
        if state.step == _WARM:
            began = time.monotonic()
        steps = state.step - _WARM
        if steps > 0 and time.monotonic() - began > seconds:
            raise _Over

    decoder, settings = build(DecoderConfig.from_dict(row.architecture), 0), CPU.distillation(10**6, 0)
    as_it_is = patch("nas.distillation.distill.training_forms", lambda *_: nullcontext()) if plain else nullcontext()
    try:
        with as_it_is:
            distill(decoder, targets, settings, device=torch.device("cpu"), report=report)
    except _Over:
        pass
    return 60 * steps / (time.monotonic() - began)


def measure(digest: str, seconds: float, processes: int, threads: int, plain: bool) -> float:
    """Steps per minute of all processes together."""
    command = [sys.executable, "-m", "scripts.steps_per_minute", "--one", digest, "--seconds", str(seconds)]
    command += ["--plain"] if plain else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    environment["OMP_NUM_THREADS"] = str(threads)
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    found = [each.communicate()[0] for each in running]
    if any(each.returncode for each in running):
        raise RuntimeError(f"a distillation ended with an error: {[each.returncode for each in running]}")
    return sum(map(float, found))


@contextmanager
def busy() -> Iterator[None]:
    """A process that computes all the time."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    """Print a row for each decoder, then the means."""
    arguments = make_parser().parse_args()
    rows = {row.digest: row for row in CurveTable.load(TABLE).decoders}
    if arguments.one:
        print(count_steps(rows[arguments.one], arguments.seconds, arguments.plain))
        return
    chosen = sorted(rows)[:: max(1, len(rows) // arguments.decoders)][: arguments.decoders]
    columns = [(way, beside) for beside in (False, True) for way in WAYS]
    named = [f"{way}{', beside a busy process' * beside}" for way, beside in columns]
    print(f"| steps per minute | {' | '.join(named)} |\n|---|{'---|' * len(columns)}")
    found: dict[tuple[str, bool], list[float]] = {column: [] for column in columns}
    for digest in chosen:
        for way, beside in columns:
            with ExitStack() as stack:
                if beside:
                    stack.enter_context(busy())
                found[way, beside].append(measure(digest, arguments.seconds, *WAYS[way]))
        cells = " | ".join(f"{found[column][-1]:.0f}" for column in columns)
        print(f"| {rows[digest].title} | {cells} |", flush=True)
    plain, fast = WAYS
    for name, upper, lower in (
        ("faster than PyTorch would", (fast, False), (plain, False)),
        ("the same beside a busy process", (fast, True), (plain, True)),
        ("slower beside a busy process, as searches do", (fast, False), (fast, True)),
        ("slower beside a busy process, as PyTorch would", (plain, False), (plain, True)),
    ):
        ratios = [above / below for above, below in zip(found[upper], found[lower], strict=True)]
        print(f"{name}: {geometric_mean(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")


def make_parser() -> argparse.ArgumentParser:
    """Its arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoders", type=int, default=6, metavar="N", help="of the benchmark (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=12.0, metavar="S", help="of each (default: %(default)s)")
    parser.add_argument("--one", metavar="DIGEST", help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
