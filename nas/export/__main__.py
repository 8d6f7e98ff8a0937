"""Export a finished model to Core ML and prove that the package gives its frames. Needs no Mac.

python -m nas.export runs/NAME/models/NAME
"""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nas.core_ml.formats import Precision, Weights
from nas.export.settings import LEAST_PSNR, ExportSettings, Rewrite
from nas.machine.plugins import load_plugins
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, parse_resolution, positive_int, run_command

if TYPE_CHECKING:
    from torch import Tensor

    from nas.model.record import ModelRecord
    from search_spaces import LatentSpec

_USUAL_SIZE = (512, 512, 17)
"""Height, width and frames of one decode, as in the papers."""

# Everything that imports torch is imported inside functions: --help has to answer at once.


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    return run_command(lambda: export(arguments), continue_with=None)


def export(arguments: argparse.Namespace) -> None:
    """Convert, prove, write, and note it in the model folder."""
    from nas.data.latents_file import read_latents
    from nas.export.package import export_decoder, model_metadata
    from nas.model.folder import check_model, load_model, read_record, record_package
    from nas.model.record import PackageRecord
    from nas.terminal import console as show

    load_plugins(arguments.plugin)
    console = show.make_console()
    folder: Path = arguments.model
    model = load_model(folder)
    record = read_record(folder)
    if record is not None:
        check_model(folder, record)
    settings = _settings(arguments, model.decoder.config.latents)
    path: Path = arguments.out or folder / settings.file_name(
        _usual_size(settings, record, model.decoder.config.latents)
    )
    replaced = _check_path(path, folder)
    show.say(console, "model", model.decoder.config.summary())
    real = read_latents(arguments.latents, model.decoder.config.latents) if arguments.latents else kept_latents(record)
    metadata = model_metadata(
        model.decoder, model.config.teacher, {} if record is None else record.evaluation.to_dict()
    )
    report = export_decoder(model.decoder, settings, path, metadata=metadata, latents=real)
    if path.parent.resolve() == folder.resolve():
        record_package(folder, path.name, PackageRecord(report.describe(), report.to_dict()))
    show.say(console, "export", report.describe())
    for name, proof in report.proofs.items():
        show.say(console, "proof", f"function {name}: {proof.describe()}")
    seconds = f"{report.convert_seconds:.0f} s to convert, {report.prove_seconds:.0f} s to prove"
    show.say(console, "saved", f"{path} ({'in place of the one before, ' * replaced}{seconds})")


def _check_path(path: Path, model: Path) -> bool:
    """Refuse a path that no package can be written to, before any work is done; whether one is there."""
    from nas.export.package import refuse_foreign
    from nas.machine.files import check_output, disk_errors
    from nas.model.folder import is_model_folder

    if path.suffix != ".mlpackage":
        raise UserError(f"a package has to be named something.mlpackage, got '{path}'")
    doing = f"cannot write the package {path.name}"
    check_output(path.parent, doing)
    with disk_errors(doing), suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()  # a name that the disk does not take
    other = next((place for place in path.absolute().parents if is_model_folder(place)), None)
    if other is not None and other.resolve() != model.resolve():
        raise UserError(f"{doing}: {other} is the folder of another model: choose another --out")
    refuse_foreign(path)
    return os.path.lexists(path)


def _usual_size(settings: ExportSettings, record: "ModelRecord | None", latents: "LatentSpec") -> tuple[int, int, int]:
    """Height, width and frames that a package's name leaves out: those that the model was timed with."""
    height, width, frames = _USUAL_SIZE
    if record is not None:
        timed = record.latency_measured
        height, width, frames = timed.height, timed.width, timed.num_frames
    return height, width, latents.num_frames(1) if settings.streaming else latents.largest_clip(frames)


def kept_latents(record: "ModelRecord | None") -> "Tensor | None":
    """Real latents `(b, c, t, h, w)`: those that the model was judged on, if they are still on this machine."""
    import torch

    from nas.data.shards import is_whole, read_row
    from nas.machine.files import default_cache_dir

    if record is None:
        return None
    folder = default_cache_dir() / "targets" / record.unseen
    shards = [path for path in sorted(folder.glob("test-*.safetensors")) if is_whole(path, check_data=True)]
    # Of the first and of the last clip.
    rows = [read_row(path, 0)["latents"].float() for path in sorted({shards[0], shards[-1]})] if shards else []
    return torch.stack(rows) if rows else None


def make_parser() -> Parser:
    """The parser of the command line."""
    parser = Parser("nas.export", __doc__ or "")
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a finished model")
    parser.add_argument(
        "--resolution", default="512x512", metavar="HxW", help="size of the frames (default: %(default)s)"
    )
    parser.add_argument(
        "--frames",
        type=positive_int,
        metavar="N",
        help="frames of one decode (default: 17, or the next lower number that fits the latents); with --streaming"
        " those of the first chunk (default: the frames of one latent)",
    )
    parser.add_argument(
        "--streaming", action="store_true", help="decode chunk by chunk, with the state as inputs and outputs"
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float16",
        metavar="TYPE",
        help="float16, float32, or mixed: float16 with the statistics of norms in float32 (default: float16)",
    )
    parser.add_argument(
        "--weights",
        choices=get_args(Weights),
        default="16bit",
        metavar="FORM",
        help="how weights are stored: 16bit, 8bit or palettized (default: 16bit)",
    )
    parser.add_argument(
        "--rewrite",
        choices=get_args(Rewrite),
        action="append",
        default=[],
        metavar="NAME",
        help="compute the same frames with other operations: subpixel (enlargements at the small size), joined or"
        " slices (3-D convolutions as 2-D ones); may be repeated",
    )
    parser.add_argument(
        "--least-psnr",
        type=float,
        default=LEAST_PSNR,
        metavar="DB",
        help="lowest PSNR in dB against the model, computed as a device rounds, at which a package is written; the"
        " model card says if it was lowered (default: %(default)g)",
    )
    parser.add_argument(
        "--latents",
        type=Path,
        metavar="FILE",
        help="real latents for the proof, beside noise: raw ones (b, c, t, h, w) in a .safetensors, .npy or .pt file"
        " (default: those that the model was judged on, if they are still there)",
    )
    parser.add_argument("--out", type=Path, metavar="PATH", help="package to write (default: in the model's folder)")
    parser.add_plugin_option()
    return parser


def _settings(arguments: argparse.Namespace, latents: "LatentSpec") -> ExportSettings:
    height, width = parse_resolution(arguments.resolution)
    usual = latents.num_frames(1) if arguments.streaming else latents.largest_clip(_USUAL_SIZE[2])
    return ExportSettings(
        height=height,
        width=width,
        num_frames=arguments.frames or usual,
        streaming=arguments.streaming,
        precision=arguments.precision,
        weights=arguments.weights,
        rewrites=tuple(name for name in get_args(Rewrite) if name in arguments.rewrite),
        least_psnr=arguments.least_psnr,
    )


if __name__ == "__main__":
    sys.exit(main())
