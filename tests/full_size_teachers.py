"""Measure a teacher of full size with random weights: what targets for one clip take.

python tests/full_size_teachers.py wan --size 512 --frames 17
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from nas.teachers import Teacher, list_releases, without_weights
from nas.teachers.weights import WeightFiles

RELEASES = {release.name: release for release in list_releases()}


def peak_memory() -> int:
    """Bytes that this process held at most so far (Linux)."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def write_weights(name: str, file: Path) -> None:
    """Random weights of the published size and configuration."""
    torch.manual_seed(0)
    model = without_weights(RELEASES[name]).build().eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)


def open_full_size(name: str, folder: Path) -> Teacher:
    """A teacher of full size; its weights are made by another process, so that this one stays small."""
    file = folder / "weights.safetensors"
    subprocess.run([sys.executable, __file__, name, "--write", str(file)], check=True)
    teacher = without_weights(RELEASES[name])
    teacher.weights, teacher.device = WeightFiles(file, teacher.weights.config), torch.device("cpu")
    return teacher


def measure_targets(teacher: Teacher, size: int, num_frames: int, folder: Path) -> None:
    """Compute and write the targets of one clip with the usual taps; say what it took."""
    from videos import write_video

    from nas.clips import Clip, ClipSet
    from nas.targets import TargetSettings, open_targets

    write_video(folder / "clip.mp4", num_frames, size, size)
    clips = ClipSet((), (), (Clip(folder / "clip.mp4", 0, num_frames),), origin=str(folder))
    settings = TargetSettings(size, num_frames, 0, 0, 1, teacher.tap_names[:2])
    start = time.perf_counter()
    open_targets(teacher, clips, settings, cache=folder)
    seconds = time.perf_counter() - start
    print(
        f"{teacher.name}: targets of {size}x{size}, {num_frames} frames: {peak_memory() / 2**30:.2f} GiB at most, ",
        end="",
    )
    print(f"{seconds:.0f} s with {torch.get_num_threads()} threads")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", choices=sorted(RELEASES))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_weights(arguments.teacher, arguments.write)
        return
    with TemporaryDirectory() as folder:
        teacher = open_full_size(arguments.teacher, Path(folder))
        measure_targets(teacher, arguments.size, arguments.frames, Path(folder))


if __name__ == "__main__":
    main()
