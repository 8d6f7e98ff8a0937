"""Export a finished model to Core ML and prove that the package gives its frames. Needs no Mac.

python -m nas.export runs/NAME/models/NAME
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nas.core_ml.formats import Precision, Weights
from nas.export.settings import LEAST_PSNR, ExportSettings, Rewrite
from nas.machine.plugins import load_plugins
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, parse_resolution, positive_int, run_command

if TYPE_CHECKING:
    from torch import Tensor

    from search_spaces import LatentSpec

_USUAL_FRAMES = 17
"""Frames of one decode, as in the papers."""

# Everything that imports torch is imported inside functions: --help has to answer at once.


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    return run_command(lambda: export(arguments), continue_with=None)


def export(arguments: argparse.Namespace) -> None:
    """Convert, prove, write, and note it in the model folder."""
    from nas.export.package import export_decoder, model_metadata
    from nas.model.folder import load_model, read_record, record_package
    from nas.model.record import PackageRecord
    from nas.terminal import console as show

    load_plugins(arguments.plugin)
    console = show.make_console()
    folder: Path = arguments.model
    model = load_model(folder)
    settings = _settings(arguments, model.decoder.config.latents)
    path: Path = arguments.out or folder / settings.file_name()
    if path.suffix != ".mlpackage":
        raise UserError(f"a package has to be named something.mlpackage, got '{path}'")
    show.say(console, "model", model.decoder.config.summary())
    latents = None if arguments.latents is None else read_latents(arguments.latents, model.decoder.config.latents)
    record = read_record(folder)
    evaluation = {} if record is None else record.evaluation.to_dict()
    metadata = model_metadata(model.decoder, model.config.teacher, evaluation)
    report = export_decoder(model.decoder, settings, path, metadata=metadata, latents=latents)
    if path.parent.resolve() == folder.resolve():
        record_package(folder, path.name, PackageRecord(report.describe(), report.to_dict()))
    show.say(console, "export", report.describe())
    for name, proof in report.proofs.items():
        show.say(console, "proof", f"function {name}: {proof.describe()}")
    seconds = f"{report.convert_seconds:.0f} s to convert, {report.prove_seconds:.0f} s to prove"
    show.say(console, "saved", f"{path} ({seconds})")


def read_latents(path: Path, spec: "LatentSpec") -> "Tensor":
    """The tensor "latents" `(1, c, t, h, w)` of a safetensors file, float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    expected = f"expected a safetensors file with a tensor 'latents' of shape (1, {spec.channels}, t, h, w)"
    try:
        latents: Tensor = load_file(path)["latents"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"cannot read {path} ({type(error).__name__}: {error}): {expected}") from error
    if latents.ndim != 5 or latents.shape[:2] != (1, spec.channels) or not latents.isfinite().all():
        raise UserError(f"{path} has latents of shape {tuple(latents.shape)}: {expected}, all of them finite")
    return latents


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
        help="real latents for the proof: a safetensors file with a tensor 'latents' (1, c, t, h, w), raw"
        " (default: noise with the latents' mean and std)",
    )
    parser.add_argument("--out", type=Path, metavar="PATH", help="package to write (default: in the model's folder)")
    parser.add_plugin_option()
    return parser


def _settings(arguments: argparse.Namespace, latents: "LatentSpec") -> ExportSettings:
    height, width = parse_resolution(arguments.resolution)
    usual = latents.num_frames(1) if arguments.streaming else latents.largest_clip(_USUAL_FRAMES)
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
