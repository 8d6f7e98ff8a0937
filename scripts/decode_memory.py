"""Measure the peak memory of decodes on a CPU, each in a process of its own.

    python -m scripts.decode_memory --frames 17 81

The student is of the space `hybrid`, like the one that the README's search finds, with random weights and latents. What
is measured is the resident memory of the whole process at its highest: Python, PyTorch, weights, latents and frames.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from blocks import BlockConfig, get_block
from nas.model import TurboVAED
from search_spaces import DecoderConfig, LatentSpec, StageConfig

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
WAYS = ("whole", "stream", "tiles", "stream of tiles")


def part(name: str, **options: int | str | bool) -> BlockConfig:
    """The config of a part."""
    return get_block(name).Config(**options)


STUDENT = DecoderConfig(
    latents=LATENTS,
    stem=part("conv3d_stem"),
    stages=(
        StageConfig(64, 2, part("low_rank_conv3d")),
        StageConfig(32, 1, part("low_rank_conv3d"), part("pixel_shuffle3d"), temporal_factor=2, spatial_factor=2),
        StageConfig(16, 1, part("residual_conv2d"), part("nearest_conv2plus1d"), temporal_factor=2, spatial_factor=2),
    ),
    head=part("pixel_shuffle_head"),
    shortcut=part("linear_shortcut"),
)


def decode(way: str, frames: int, height: int, width: int) -> str:
    """Decode once in this process; a row with what it took."""
    model: TurboVAED = TurboVAED(STUDENT.to_dict(), "wan").eval()
    latents = torch.randn(1, *LATENTS.latent_shape(frames, height, width))
    if "tiles" in way:
        model.enable_tiling()
    started, count = time.perf_counter(), 0
    with torch.no_grad():
        if "stream" in way:
            # What is done with the frames of a chunk is the caller's: here they are dropped.
            for chunk in model.stream(torch.split(latents, 1, dim=2)):
                count += chunk.shape[2]
        else:
            count = model.decode(latents).sample.shape[2]
    seconds = time.perf_counter() - started
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    return f"| {way} | {count} | {gib:.2f} | {seconds / count:.2f} |"


def main() -> None:
    """Print the table, or with `--way` the row of one decode in this process."""
    parser = argparse.ArgumentParser(description="Measure the peak memory of decodes on a CPU.")
    parser.add_argument("--frames", type=int, nargs="+", default=[17, 81])
    parser.add_argument("--size", type=int, nargs=2, default=[720, 1280])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--here", action="store_true", help="in this process; one way and one number of frames")
    options = parser.parse_args()
    if options.here:
        print(decode(options.ways[0], options.frames[0], *options.size), flush=True)
        return
    print("| decode | frames | peak GiB | seconds per frame |\n|---|---|---|---|", flush=True)
    for way in options.ways:
        for frames in options.frames:
            size = map(str, options.size)
            words = ["--frames", str(frames), "--size", *size, "--ways", way, "--here"]
            subprocess.run([sys.executable, "-m", "scripts.decode_memory", *words], check=True)


if __name__ == "__main__":
    main()
