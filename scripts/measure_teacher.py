"""What a teacher's encoding and decoding take on a CPU, with plain 3-D convolutions and with fast ones.

    OMP_NUM_THREADS=1 python -m scripts.measure_teacher wan-tiny --frames 17 --size 128

In turn, CPU time of the quickest of `--rounds`, and how far the results are apart.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from nas.teachers import load_teacher


def timed(compute: Callable[[], Tensor], rounds: int) -> tuple[float, float, float]:
    """CPU seconds with plain and with fast convolutions, and the largest difference."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    results: dict[bool, Tensor] = {}
    for _ in range(rounds):
        for plain in (True, False):
            with patch("nas.machine.fast_convolutions.has_onednn", lambda _, plain=plain: not plain):
                begin = time.process_time()
                results[plain] = compute()
                seconds[plain].append(time.process_time() - begin)
    return min(seconds[True]), min(seconds[False]), float((results[True] - results[False]).abs().max())


def main() -> None:
    """Print a row for each direction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="name of a teacher")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="its weights, if they are not embedded")
    parser.add_argument("--frames", type=int, default=17, metavar="N", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    teacher = load_teacher(arguments.teacher, arguments.weights)
    size = (1, 3, arguments.frames, arguments.size, arguments.size)
    video = 2 * torch.rand(size, generator=torch.Generator().manual_seed(0)) - 1
    latents = teacher.encode(video)
    print("| | plain, s | fast, s | ratio | largest difference |\n|---|---|---|---|---|")
    for name, compute in (("encode", lambda: teacher.encode(video)), ("decode", lambda: teacher.decode(latents))):
        plain, fast, difference = timed(compute, arguments.rounds)
        print(f"| {name} | {plain:.2f} | {fast:.2f} | {plain / fast:.1f} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
