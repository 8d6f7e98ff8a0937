"""The options of a search, and what they become: settings of the run, the timed decode, limits of the study.

Imports no torch and no optuna, so that `--help` answers at once.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nas.distillation.recipes import CPU, GPU, Recipe
from nas.latency import DEFAULT_DEVICE, Workload, parse_budget
from nas.machine.plugins import named_plugins
from nas.machine.reading import real_path
from nas.study.settings import RunSettings
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, parse_resolution, positive_int, seed_number

if TYPE_CHECKING:
    from nas.study.limits import StudyLimits
    from search_spaces import LatentSpec

_SHARED = ("teacher", "latency_budget", "device", "resolution", "frames", "space", "trials", "steps", "seed", "grace")
"""Options that are one for all searches that work on a study."""
_USUAL_FRAMES = 17
"""Frames of the timed decode, as in the papers."""


def add_options(parser: Parser) -> None:
    """Add everything that a search may be asked for to its parser."""
    teacher = parser.add_argument_group("what is distilled")
    teacher.add_argument("--teacher", default="wan-tiny", help="name of the teacher (default: wan-tiny, embedded)")
    teacher.add_argument(
        "--teacher-weights",
        type=Path,
        metavar="PATH",
        help="diffusers folder or safetensors file (default: as published)",
    )
    teacher.add_argument("--clips", type=Path, metavar="DIR", help="folder of your videos (default: embedded clips)")
    budget = parser.add_argument_group("what it may cost")
    budget.add_argument(
        "--latency-budget",
        metavar="TIME",
        help="per decoded frame: 30ms, 0.03s, or a rate such as 33fps (required, except with --join)",
    )
    budget.add_argument(
        "--device",
        default=DEFAULT_DEVICE,
        help="name, host, profile.json or agent's http:// address (default: %(default)s)",
    )
    budget.add_argument(
        "--resolution", default="512x512", metavar="HxW", help="size of the timed decode (default: %(default)s)"
    )
    budget.add_argument(
        "--frames", type=positive_int, metavar="N", help="frames of the timed decode (default: 17 or just below)"
    )
    study = parser.add_argument_group("how it is searched")
    study.add_argument("--space", default="hybrid", help="search space (default: %(default)s)")
    study.add_argument("--trials", type=positive_int, default=30, metavar="N", help="candidates to train (default: 30)")
    study.add_argument(
        "--steps",
        type=positive_int,
        metavar="N",
        help=f"steps of each short distillation (default: {CPU.short_steps}, with a GPU {GPU.short_steps})",
    )
    study.add_argument(
        "--time-limit",
        metavar="TIME",
        help=f"start no candidate after this long, e.g. 2h (default: {_written_limit(CPU)}, with a GPU"
        f" {_written_limit(GPU)})",
    )
    study.add_argument(
        "--seed", type=seed_number, default=0, metavar="N", help="seed of everything random (default: 0)"
    )
    study.add_argument(
        "--run", type=Path, metavar="DIR", help="run folder (default: continue the same search, else new)"
    )
    parser.add_plugin_option()
    _add_sharing(parser)


def _add_sharing(parser: Parser) -> None:
    several = parser.add_argument_group("several processes and machines")
    several.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="candidates trained side by side (default: one for each core of a CPU, one on a GPU)",
    )
    several.add_argument(
        "--ray", metavar="ADDRESS", help="train on a Ray cluster: auto, or host:port of its head (default: here)"
    )
    several.add_argument(
        "--storage",
        metavar="URL",
        help="keep the study on a server: postgresql://user@host/database (default: in the run folder)",
    )
    several.add_argument(
        "--join", metavar="NAME", help="work on the study of this name on the server, as whoever started it asked for"
    )
    several.add_argument(
        "--grace",
        metavar="TIME",
        default="2m",
        help="with --storage: a search that is silent for so long is taken for dead (default: %(default)s)",
    )


def check_sharing(parser: Parser, arguments: argparse.Namespace) -> None:
    """End the command if its options for several machines do not go together, or what they leave open is missing."""
    if arguments.join is None and arguments.latency_budget is None:
        parser.error("the following arguments are required: --latency-budget")
    if arguments.join is None:
        return
    if arguments.storage is None:
        parser.error("--join needs --storage, the server that the study is on")
    for name in _SHARED:
        if getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--join takes --{name.replace('_', '-')} from the study: leave it out")


def run_settings(arguments: argparse.Namespace, workload: Workload, recipe: Recipe) -> RunSettings:
    """What the run keeps of the arguments.

    Raises:
        UserError: the budget is not one.
    """
    parse_budget(arguments.latency_budget)
    weights, clips = arguments.teacher_weights, arguments.clips
    return RunSettings(
        teacher=arguments.teacher,
        teacher_weights=str(real_path(weights)) if weights else None,
        clips=str(real_path(clips)) if clips else None,
        budget=arguments.latency_budget.replace(" ", ""),
        device=arguments.device,
        height=workload.height,
        width=workload.width,
        frames=workload.num_frames,
        space=arguments.space,
        steps=arguments.steps or recipe.short_steps,
        seed=arguments.seed,
        plugins=named_plugins(),
    )


def parse_time(text: str, what: str) -> float:
    """Seconds that a time says; UserError if it is something else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip().lower())
    if not found or float(found[1]) == 0:
        raise UserError(f"expected a {what} such as 90s, 30m or 2h, got '{text}'")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def timed_decode(arguments: argparse.Namespace, latents: "LatentSpec | None") -> Workload:
    """The timed decode; UserError if it is not on the grid of these latents, None where they are not known yet."""
    height, width = parse_resolution(arguments.resolution)
    usual = _USUAL_FRAMES if latents is None else latents.largest_clip(_USUAL_FRAMES)
    workload = Workload(height, width, arguments.frames or usual)
    if latents is not None:
        check_fit(workload, latents, arguments.teacher)
    return workload


def check_fit(workload: Workload, latents: "LatentSpec", teacher: str) -> None:
    """UserError if the timed decode is not on the grid of the latents of this teacher."""
    try:
        latents.latent_shape(workload.num_frames, workload.height, workload.width)
    except ValueError as error:
        raise UserError(f"--frames or --resolution does not fit {teacher}: {error}") from error


def _written_limit(recipe: Recipe) -> str:
    return "none" if recipe.search_seconds is None else f"{recipe.search_seconds / 60:g}m"


def study_limits(arguments: argparse.Namespace, recipe: Recipe) -> "StudyLimits":
    """When the search ends; UserError if the time limit is not one."""
    from nas.study.limits import StudyLimits

    seconds = parse_time(arguments.time_limit, "time limit") if arguments.time_limit else recipe.search_seconds
    return StudyLimits(trials=arguments.trials, seconds=seconds)
