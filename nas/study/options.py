"""The options of a search, and what they become: settings of the run, the timed decode, limits of the study.

Imports no torch and no optuna, so that `--help` answers at once.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.distillation.recipes import CPU, GPU, Recipe
from nas.latency import DEFAULT_DEVICE, Workload, parse_budget
from nas.machine.plugins import named_plugins
from nas.machine.reading import real_path
from nas.proposals.names import DEFAULT_PROPOSER, PROPOSERS
from nas.study.constraints import Constraint, in_words
from nas.study.quantities import parse_bytes, parse_count
from nas.study.settings import RunSettings
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, parse_resolution, positive_int, seed_number

if TYPE_CHECKING:
    from nas.latency.devices import LatencyDevice
    from nas.study.limits import StudyLimits
    from search_spaces import LatentSpec

_LIMITS = {"max_params": parse_count, "max_memory": parse_bytes, "max_size": parse_bytes}
"""Limits beside the latency budget -> what reads them."""
_SHARED = (
    *("teacher", "latency_budget", "device", "resolution", "frames", "space", "trials", "steps", "seed", "grace"),
    "proposer",
    *_LIMITS,
)
"""Options that are one for all searches that work on a study."""
_USUAL_FRAMES = 17
"""Frames of the timed decode, as in the papers."""


def add_options(parser: Parser) -> None:
    """Add everything that a search may be asked for to its parser."""
    _add_what_is_distilled(parser)
    _add_limits(parser)
    _add_how(parser)
    parser.add_plugin_option()
    _add_where(parser)


def _add_what_is_distilled(parser: Parser) -> None:
    teacher = parser.add_argument_group("what is distilled")
    teacher.add_argument("--teacher", default="wan-tiny", help="name of the teacher (default: wan-tiny, embedded)")
    teacher.add_argument(
        "--teacher-weights",
        type=Path,
        metavar="PATH",
        help="diffusers folder or safetensors file (default: as published)",
    )
    teacher.add_argument(
        "--clips",
        type=Path,
        metavar="PATH",
        help="folder of your videos, or a list of them: txt, csv, jsonl (default: embedded clips)",
    )


def _add_limits(parser: Parser) -> None:
    budget = parser.add_argument_group("what it may cost")
    budget.add_argument(
        "--latency-budget",
        metavar="TIME",
        help="per decoded frame: 30ms, 0.03s, or a rate such as 33fps (required, except with --join and --status)",
    )
    budget.add_argument(
        "--device",
        action="append",
        metavar="DEVICE",
        help="name, host, profile.json or agent's http:// address; may be repeated, and the budget has to be met on"
        f" all (default: {DEFAULT_DEVICE})",
    )
    budget.add_argument("--max-params", metavar="COUNT", help="parameters of the decoder: 5M, 500k (default: any)")
    budget.add_argument(
        "--max-memory", metavar="SIZE", help="activations that the timed decode holds at once: 200MB (default: any)"
    )
    budget.add_argument("--max-size", metavar="SIZE", help="Core ML package in 16 bit: 20MB (default: any)")
    budget.add_argument(
        "--resolution", default="512x512", metavar="HxW", help="size of the timed decode (default: %(default)s)"
    )
    budget.add_argument(
        "--frames", type=positive_int, metavar="N", help="frames of the timed decode (default: 17 or just below)"
    )


def _add_how(parser: Parser) -> None:
    study = parser.add_argument_group("how it is searched")
    study.add_argument("--space", default="hybrid", help="search space (default: %(default)s)")
    study.add_argument(
        "--trials", type=positive_int, default=100, metavar="N", help="candidates to train (default: 100)"
    )
    study.add_argument(
        "--proposer",
        choices=PROPOSERS,
        default=DEFAULT_PROPOSER,
        help="what proposes: %(choices)s (default: %(default)s)",
    )
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
    study.add_argument(
        "--from-run",
        type=Path,
        metavar="RUN",
        help="earlier run, for another budget, device or size, whose trials count without being trained again",
    )
    study.add_argument("--status", type=Path, metavar="RUN", help="only print how the search in this folder is doing")


def _add_where(parser: Parser) -> None:
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
    if arguments.status is not None:
        return
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
        UserError: a limit is not one, or a device is named twice.
    """
    parse_budget(arguments.latency_budget)
    devices = named_devices(arguments)
    limits: dict[str, Any] = {
        name: _limit(f"--{name.replace('_', '-')}", getattr(arguments, name), read) for name, read in _LIMITS.items()
    }
    weights, clips = arguments.teacher_weights, arguments.clips
    return RunSettings(
        teacher=arguments.teacher,
        teacher_weights=str(real_path(weights)) if weights else None,
        clips=str(real_path(clips)) if clips else None,
        budget=arguments.latency_budget.replace(" ", ""),
        device=devices[0],
        height=workload.height,
        width=workload.width,
        frames=workload.num_frames,
        space=arguments.space,
        steps=arguments.steps or recipe.short_steps,
        seed=arguments.seed,
        plugins=named_plugins(),
        more_devices=tuple(devices[1:]),
        proposer=arguments.proposer,
        **limits,
    )


def named_devices(arguments: argparse.Namespace) -> list[str]:
    """The devices that the budget is for; UserError if one is named twice."""
    names: list[str] = arguments.device or [DEFAULT_DEVICE]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--device {twice[0]} is given twice: name each device once")
    return names


def _limit(flag: str, text: str | None, read: Callable[[str], float]) -> str | None:
    """A limit as it was written, without spaces; UserError if it is not one."""
    if text is None:
        return None
    try:
        read(text)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error
    return text.replace(" ", "")


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


def open_devices(arguments: argparse.Namespace) -> "dict[str, LatencyDevice]":
    """The devices that the budget is for, by the names that they were asked for with.

    Raises:
        UserError: one cannot be opened, or two names are of the same device.
    """
    from nas.latency import open_device

    found = {name: open_device(name) for name in named_devices(arguments)}
    names: dict[str, str] = {}
    for asked, device in found.items():
        if device.name in names:
            raise UserError(f"--device {names[device.name]} and --device {asked} are both {device.name}: name it once")
        names[device.name] = asked
    return found


def describe_budget(settings: RunSettings, devices: "Mapping[str, LatencyDevice]") -> list[str]:
    """What a decoder may cost, a line for each device and one for all other limits."""
    latency = Constraint("latency", settings.constraints[0].limit, "ms per frame").describe()
    lines = [f"{latency} {device.describe(settings.workload)}" for device in devices.values()]
    others = [constraint for constraint in settings.constraints if not constraint.name.startswith("latency")]
    return [*lines, f"at most {in_words(others)}"] if others else lines
