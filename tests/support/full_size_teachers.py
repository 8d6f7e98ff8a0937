"""Measure teachers of full size with random weights: memory of targets for one clip, and time of truncated features.

python -m tests.support.full_size_teachers memory wan --size 512 --frames 17
python -m tests.support.full_size_teachers time wan --size 64 --frames 17
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
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
    subprocess.run(
        [sys.executable, "-m", "tests.support.full_size_teachers", "write", name, "--out", str(file)], check=True
    )
    teacher = without_weights(RELEASES[name])
    teacher.weights, teacher.device = WeightFiles(file, teacher.weights.config), torch.device("cpu")
    return teacher


def measure_targets(teacher: Teacher, size: int, num_frames: int, folder: Path) -> None:
    """Compute and write the targets of one clip with the usual taps; say what it took."""
    from nas.data.clips import Clip
    from nas.data.make_targets import open_targets
    from nas.data.settings import TargetSettings
    from nas.data.splits import ClipSet
    from tests.support.videos import write_video

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


def measure_time(teacher: Teacher, size: int, num_frames: int) -> None:
    """Time features at the usual taps against whole decodes, alternating, the faster of two each."""
    latents = torch.randn(1, *teacher.latent_shape(num_frames, size, size))
    taps = teacher.tap_names[:2]
    uses: dict[str, Callable[[], object]] = {
        "features": lambda: teacher.features(latents, taps),
        "decode": lambda: teacher.decode(latents),
    }
    best = dict.fromkeys(uses, float("inf"))
    for _ in range(2):
        for name, use in uses.items():
            start = time.process_time()
            use()
            best[name] = min(best[name], time.process_time() - start)
    share = 100 * best["features"] / best["decode"]
    print(f"{teacher.name}: {size}x{size}, {num_frames} frames: features take {share:.0f}% of {best['decode']:.1f} s")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "time", "write"))
    parser.add_argument("teacher", choices=sorted(RELEASES))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "write":
        write_weights(arguments.teacher, arguments.out)
        return
    with TemporaryDirectory() as folder:
        teacher = open_full_size(arguments.teacher, Path(folder))
        if arguments.what == "time":
            measure_time(teacher, arguments.size, arguments.frames)
        else:
            measure_targets(teacher, arguments.size, arguments.frames, Path(folder))


if __name__ == "__main__":
    main()
