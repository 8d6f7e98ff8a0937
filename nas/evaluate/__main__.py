"""Judge finished models against their teacher and against the video, side by side.

python -m nas.evaluate runs/NAME/models/NAME --clips DIR
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.evaluate.settings import PROTOCOLS, Settings
from nas.machine.plugins import load_plugins
from nas.machine.threads import let_threads_sleep
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, positive_int, run_command

if TYPE_CHECKING:
    from rich.console import Console

    from nas.evaluate.contestants import Contestants
    from nas.evaluate.judge import Verdict
    from nas.evaluate.material import Material
    from nas.metrics.i3d import I3D

# Everything that imports torch is imported inside functions: --help has to answer at once.


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    let_threads_sleep()
    return run_command(lambda: evaluate(arguments), continue_with=None)


def evaluate(arguments: argparse.Namespace) -> None:
    """The command, in the order in which things happen."""
    from nas.evaluate.contestants import open_contestants
    from nas.evaluate.outcome import Outcome, check_out, write_outcome
    from nas.evaluate.table import print_outcome
    from nas.evaluation.pictures import GAIN
    from nas.machine.device import choose_device
    from nas.metrics.i3d import load_i3d
    from nas.terminal import console as show

    load_plugins(arguments.plugin)
    console = show.make_console()
    settings = _settings(arguments)
    out: Path = arguments.out or arguments.models[0] / "evaluation"
    who = open_contestants(arguments.models, arguments.teacher_weights, choose_device())
    check_out(out)
    i3d = load_i3d(arguments.i3d).to(who.teacher.device) if arguments.i3d else None
    show.say(console, "teacher", who.teacher.describe())
    for student in who.students:
        show.say(console, "model", f"{student.name}: {student.model.decoder.config.summary()}")
    material = _material(console, who, settings, arguments)
    show.say(console, "decoding", _describe(settings, who))
    verdicts = _judge(console, who, material, i3d)
    latents = _origin(arguments, settings)
    outcome = Outcome(who, tuple(material), settings, latents, verdicts)
    with show.progress(console, "saving", "pictures of the worst and the median clip"):
        write_outcome(outcome, out)
    print_outcome(console, outcome)
    rows = "video, teacher, model" if outcome.to_truth(None)[0] else "teacher, model"
    show.say(console, "pictures", f"the worst and the median clip: {rows}, their difference x{GAIN}")
    show.say(console, "saved", str(out))


def _settings(arguments: argparse.Namespace) -> Settings:
    """What the arguments ask for.

    Raises:
        UserError: two of them exclude each other.
    """
    clips_only = {"--clips": arguments.clips, "--protocol": arguments.protocol, "--frames": arguments.frames}
    clips_only |= {"--crop": arguments.crop, "--noise": arguments.noise, "--i3d": arguments.i3d}
    if arguments.latents:
        wrong = next((name for name, value in clips_only.items() if value), None)
        if wrong:
            raise UserError(f"{wrong} is about clips: give it without --latents")
        return Settings()
    if arguments.normalised:
        raise UserError("--normalised is about the latents of a file: give it with --latents")
    if arguments.protocol:
        wrong = next((name for name in ("--frames", "--crop") if clips_only[name]), None)
        if wrong:
            raise UserError(f"{wrong} is fixed by --protocol {arguments.protocol}: give one of the two")
        return replace(PROTOCOLS[arguments.protocol], noise=arguments.noise)
    return Settings(frames=arguments.frames, crop=arguments.crop or 0, noise=arguments.noise)


def _material(
    console: "Console", who: "Contestants", settings: Settings, arguments: argparse.Namespace
) -> "list[Material]":
    from nas.data.splits import open_test_clips
    from nas.evaluate.material import clip_material, latents_material, least_frames, scaling_of
    from nas.terminal import console as show

    if arguments.latents:
        found = latents_material(arguments.latents, who, normalised=arguments.normalised)
        scale = "normalised" if arguments.normalised else "raw"
        show.say(console, "latents", f"{len(found)} from {arguments.latents}, taken for {scale}")
        return found
    least, spec = least_frames(who), who.teacher.spec
    if settings.frames is not None and settings.frames < least:
        raise UserError(f"--frames {settings.frames}: expected at least {least}, which are two latent frames")
    if settings.noise:
        scaling_of(who)
    most = None
    if settings.first_only and settings.frames:
        least = most = spec.largest_clip(settings.frames)
    with show.progress(console, "clips", "looking into videos") as advance:
        clips = open_test_clips(arguments.clips, least, most, advance)
    show.say(console, "clips", f"{len(clips.test)} of {clips.origin}")
    for line in clips.warnings():
        show.warn(console, line)
    return clip_material(clips.test, settings, who)


def _judge(
    console: "Console", who: "Contestants", material: "list[Material]", i3d: "I3D | None"
) -> "tuple[Verdict, ...]":
    from nas.evaluate.judge import judge
    from nas.terminal import console as show

    total, done = sum(each.num_frames for each in material), 0
    found = []
    with show.progress(console, "evaluation") as advance:

        def count(frames: int) -> None:
            nonlocal done
            done += frames
            advance(done, total)

        for each in material:
            found.append(judge(who, each, count, i3d))
    return tuple(found)


def _describe(settings: Settings, who: "Contestants") -> str:
    """How frames go through the decoders, for people."""
    from nas.evaluate.settings import CHUNK, LONGEST_WHOLE

    if who.streamed:
        return f"streamed, {CHUNK} latent frames at once"
    longest = who.teacher.spec.largest_clip(settings.frames or LONGEST_WHOLE)
    reason = "the teacher does not stream" if not who.teacher.streams else "a model does not stream"
    return f"whole clips of at most {longest} frames ({reason})"


def _origin(arguments: argparse.Namespace, settings: Settings) -> str:
    if arguments.latents:
        return f"{arguments.latents}, {'normalised' if arguments.normalised else 'raw'}"
    noise = f", with noise of {settings.noise:g} of their standard deviation" if settings.noise else ""
    return f"mode of the teacher's encoder{noise}"


def _share(text: str) -> float:
    """Argument type: a number from 0 to 10."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number, got '{text[:40]}'") from error
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 10, got {text[:40]}")
    return value


def make_parser() -> Parser:
    """Its arguments."""
    parser = Parser("nas.evaluate", __doc__ or "")
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folders of finished models")
    parser.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="folder of videos that no model was trained on; of one with subfolders train, score and test, test alone"
        " (default: the embedded clips for tests)",
    )
    parser.add_argument(
        "--latents",
        type=Path,
        metavar="PATH",
        help="latents in place of clips, such as those of a diffusion model: a .safetensors, .npy or .pt file or a"
        " folder of them, raw as the teacher's decode takes them",
    )
    parser.add_argument(
        "--normalised", action="store_true", help="the latents have unit scale, as within a diffusers pipeline"
    )
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        metavar="NAME",
        help="frames, size and crop as papers have them: ucf101 (the first 17 frames, 256x256) or davis (512x512)",
    )
    parser.add_argument(
        "--frames",
        type=positive_int,
        metavar="N",
        help="frames of one decode; longer clips become several (default: whole clips, or 49 where somebody does not"
        " stream)",
    )
    parser.add_argument(
        "--crop", type=positive_int, metavar="PIXELS", help="height and width of a central crop (default: whole frames)"
    )
    parser.add_argument(
        "--noise",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="noise that is added to the encoder's latents, as a share of the standard deviation of each channel;"
        " models are then judged against the teacher alone (default: 0)",
    )
    parser.add_argument(
        "--i3d", type=Path, metavar="FILE", help="weights of I3D for RGB and Kinetics-400, a state dict, for rFVD"
    )
    parser.add_argument(
        "--teacher-weights", type=Path, metavar="PATH", help="the teacher's weights (default: as when it was distilled)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the evaluation goes (default: evaluation/ in the first MODEL)"
    )
    parser.add_plugin_option()
    return parser


if __name__ == "__main__":
    sys.exit(main())
