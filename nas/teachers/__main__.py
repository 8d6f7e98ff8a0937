"""List the teachers: where their weights are published, the geometry of their latents, what is on this machine.

python -m nas.teachers
"""

import argparse
import sys
from typing import TYPE_CHECKING

from nas.machine.plugins import load_plugins
from nas.terminal.parser import Parser, run_command

if TYPE_CHECKING:
    from nas.teachers import Release


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    return run_command(lambda: show_teachers(arguments), continue_with=None)


def make_parser() -> Parser:
    """Its arguments."""
    parser = Parser("nas.teachers", __doc__ or "")
    parser.add_argument("--costs", action="store_true", help="what decoding takes, and how little of it features need")
    parser.add_plugin_option()
    return parser


def show_teachers(arguments: argparse.Namespace) -> None:
    """A table of all teachers, and where a published configuration is not its class's default."""
    from rich.table import Table

    from nas.teachers import list_releases, unpublished_teachers
    from nas.terminal.console import make_console

    load_plugins(arguments.plugin)
    console = make_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("teacher", *(_COST_TITLES if arguments.costs else _TITLES)):
        table.add_column(title, no_wrap=True)
    for release in list_releases():
        table.add_row(release.name, *(_costs(release) if arguments.costs else _facts(release)))
    for name in unpublished_teachers():
        # What it is like is in its weights, which only its user has.
        table.add_row(name, *(["-"] * len(_COST_TITLES) if arguments.costs else _UNPUBLISHED))
    console.print(table)
    notes = [] if arguments.costs else [release for release in list_releases() if release.note]
    for release in notes:
        console.print(f"{release.name}: {release.note}", style="dim", soft_wrap=True)


_TITLES = ("published as", "channels", "compression", "frames of n latents", "decoder", "weights")
_UNPUBLISHED = ("not published here", "-", "-", "-", "-", "--teacher-weights PATH")
_COST_TITLES = ("clip", "GMACs per frame", "of that for features at", "", "memory")


def _facts(release: "Release") -> list[str]:
    from nas.terminal.console import format_count

    latents = release.latents
    return [
        release.source,
        str(latents.channels),
        f"{latents.temporal}x{latents.spatial}x{latents.spatial}",
        latents.frames_formula(),
        format_count(release.decoder_parameters),
        "here" if release.cached() else "to be downloaded" if release.revision else "--teacher-weights PATH",
    ]


def _costs(release: "Release") -> list[str]:
    """Multiply-accumulates of the decoder at 512x512, the share that its first two taps need, and memory in float32."""
    from nas.latency import Workload, list_operations
    from nas.teachers import without_weights

    teacher, latents = without_weights(release), release.latents
    clip = Workload(512, 512, latents.largest_clip(17))
    shape = (1, *latents.latent_shape(clip.num_frames, clip.height, clip.width))

    def macs() -> int:
        return sum(operation.macs for operation in list_operations(teacher.skeleton_decoding(), shape))

    taps = teacher.tap_names[:2]
    everything = macs()
    with teacher.stopping_after(teacher.skeleton, taps):
        needed = macs()
    per_frame = everything / clip.num_frames / 1e9
    memory = teacher.memory(clip.num_frames, clip.height, clip.width, taps) / 2**30
    shares = [" and ".join(taps), f"{100 * needed / everything:.0f}%"]
    return [clip.describe(), f"{per_frame:.0f}", *shares, f"{memory:.1f} GiB"]


if __name__ == "__main__":
    sys.exit(main())
