"""Decode latents or a video with a finished model: into a video file or pictures, clips of any length.

python -m nas.decode MODEL latents.safetensors -o out.mp4
python -m nas.decode MODEL video.mp4 -o out.mp4 --compare

Latents are what the teacher's encoder or its diffusion model makes, raw. A video goes through the teacher's encoder.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from nas.machine.plugins import load_plugins
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, run_command

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from torch import Tensor, device

    from nas.data.encoding import EncodedVideo
    from nas.model import TurboVAED

# Everything that imports torch is imported inside functions: --help has to answer at once.

_DEFAULT_RATE = Fraction(24)
"""Frames per second of latents, which do not say."""


def make_parser() -> Parser:
    """The command's arguments."""
    parser = Parser("nas.decode", __doc__ or "")
    parser.add_argument("model", type=Path, metavar="MODEL", help="model folder, as finalize writes it")
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="latents (.safetensors, .npy, .pt), or a video for the teacher to encode",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="video to write: .mp4, .mov, .mkv (lossless) or .y4m; without an ending a folder of PNG pictures",
    )
    parser.add_argument("--fps", type=frame_rate, metavar="N", help="frames per second (default: the video's, else 24)")
    parser.add_argument("--tile", action="store_true", help="decode frames in tiles: the same frames in less memory")
    parser.add_argument(
        "--compare", action="store_true", help="the video on the left, what the model makes of it right"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument(
        "--teacher-weights",
        type=Path,
        metavar="PATH",
        help="weights of the teacher, to encode a video (default: published)",
    )
    parser.add_plugin_option()
    return parser


def frame_rate(text: str) -> Fraction:
    """Argument type: frames per second, such as 24, 23.976 or 30000/1001.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(
            f"expected frames per second such as 24 or 30000/1001, got '{text}'"
        ) from error
    if not 1 <= rate <= 1000:
        raise argparse.ArgumentTypeError(f"expected 1 to 1000 frames per second, got {text}")
    return rate.limit_denominator(1001)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = make_parser().parse_args(argv)

    def run() -> None:
        from nas.terminal.console import make_console

        load_plugins(options.plugin)
        decode(make_console(), options)

    return run_command(run, continue_with=None)


def decode(console: "Console", options: argparse.Namespace) -> None:
    """Check everything that can be checked before, then decode and write.

    Raises:
        UserError: model, input or output cannot be used; nothing is at the output then.
    """
    from nas.data.video_writer import check_frames_output, frames_writer
    from nas.machine.device import choose_device, named_device
    from nas.model.folder import load_model
    from nas.terminal.console import progress, say, warn

    check_frames_output(options.out)
    device = named_device(options.device) if options.device else choose_device()
    model = load_model(options.model).to(device)
    if options.tile:
        model.enable_tiling()
    source = open_source(options, model, device)
    rate = options.fps or source.rate
    say(
        console,
        "model",
        f"{options.model}, {'chunk by chunk' if model.decoder.can_stream else 'all at once'} on {device}",
    )
    say(console, "input", source.description)
    if not model.decoder.can_stream:
        warn(console, "this model does not stream: memory grows with the length of the clip")
    if source.video is not None and not source.video.streams:
        warn(console, "this teacher encodes whole clips: memory grows with the length of the clip")
    count, started = 0, time.perf_counter()
    with frames_writer(options.out, rate) as write, progress(console, "decoding") as advance:
        for frames in decoded(model, source, compare=options.compare):
            write(frames)
            count += len(frames)
            advance(count, max(count, source.expected_frames))
    seconds = time.perf_counter() - started
    if source.video is not None and source.video.left_out:
        warn(console, f"the last {source.video.left_out} frames of the video make no whole latent and are left out")
    size = f"{count} frames of {frames.shape[1]}x{frames.shape[2]}"
    say(console, "done", f"{size} in {seconds:.1f} s, {count / seconds:.2f} frames/s with reading and writing")
    say(console, "saved", str(options.out))


@dataclass
class Source:
    """Where latents come from, piece by piece."""

    description: str
    """One line for people."""
    rate: Fraction
    """Frames per second, if nothing else is asked for."""
    expected_frames: int
    """Frames that it will decode to, as far as that is known."""
    latents: "Tensor | None" = None
    """All of them, `(1, c, t, h, w)`, if they were in a file."""
    video: "EncodedVideo | None" = None
    """The video that is encoded otherwise."""

    def pieces(self) -> "Iterator[tuple[np.ndarray | None, Tensor]]":
        """Latents of one latent frame or of all, and what they were made from if that is known."""
        if self.video is not None:
            yield from self.video.pieces()
        else:
            assert self.latents is not None
            for index in range(self.latents.shape[2]):
                yield None, self.latents[:, :, index : index + 1]


def open_source(options: argparse.Namespace, model: "TurboVAED", device: "device") -> Source:
    """Latents or a video, by the name of the input.

    Raises:
        UserError: it cannot be read, or is not for this model.
    """
    from nas.data.encoding import EncodedVideo
    from nas.data.latents_file import EXTENSIONS, read_latents
    from nas.teachers import load_teacher

    spec, path = model.decoder.config.latents, options.input
    if path.suffix.lower() in EXTENSIONS:
        if options.compare:
            raise UserError(f"--compare shows a video beside what the model makes of it, and {path} holds latents")
        latents = read_latents(path, spec)
        if len(latents) != 1:
            raise UserError(f"{path} holds the latents of {len(latents)} clips: give those of one clip")
        frames = spec.num_frames(latents.shape[2])
        return Source(f"{path}, latents {tuple(latents.shape)}", _DEFAULT_RATE, frames, latents=latents)
    teacher = load_teacher(model.config["teacher"], options.teacher_weights, device)
    for name in ("channels", "spatial", "temporal", "frame_rule"):
        theirs, ours = getattr(teacher.spec, name), getattr(spec, name)
        if theirs != ours:
            raise UserError(
                f"latents of {teacher.name} have {name} {theirs}, the model decodes {ours}: give the one that it was "
                f"distilled from with --teacher-weights"
            )
    video = EncodedVideo(path, teacher)
    description = f"{path}, {video.height}x{video.width}, encoded by {teacher.name}"
    return Source(description, video.rate, video.expected_frames, video=video)


def decoded(model: "TurboVAED", source: Source, *, compare: bool) -> "Iterator[np.ndarray]":
    """Frames, uint8 `(t, h, w, 3)`, piece by piece; with `compare` beside what the latents were made from."""
    import numpy as np
    import torch

    from nas.machine.fast_convolutions import fast_convolutions

    originals: list[np.ndarray] = []

    def latents() -> "Iterator[Tensor]":
        for original, piece in source.pieces():
            if original is not None and compare:
                originals.append(original)
            yield piece.to(model.device)

    def at_once() -> "Iterator[Tensor]":
        yield model.decode(torch.cat(list(latents()), dim=2), return_dict=False)[0]

    def pieces() -> "Iterator[Tensor]":
        stream = model.stream(latents()) if model.decoder.can_stream else at_once()
        while True:
            with fast_convolutions(model.device):
                piece = next(stream, None)
            if piece is None:
                return
            yield piece

    for piece in pieces():
        frames = to_pixels(piece)
        if compare:
            frames = np.concatenate([np.concatenate(originals), frames], axis=2)
            originals.clear()
        yield frames


def to_pixels(frames: "Tensor") -> "np.ndarray":
    """`(1, 3, t, h, w)` in [-1, 1] -> uint8 `(t, h, w, 3)`."""
    import torch
    from einops import rearrange

    pixels = ((frames[0].float() + 1) * 127.5).round().to(torch.uint8)
    array: np.ndarray = rearrange(pixels, "c t h w -> t h w c").cpu().numpy()
    return array


if __name__ == "__main__":
    sys.exit(main())
