"""Distil the best candidates of a search in full, evaluate them, and write a model folder for each.

python -m nas.finalize
"""

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.settings import MAX_BYTES
from nas.distillation.phases import list_recipes, load_phases
from nas.distillation.recipes import CPU, GPU
from nas.machine.plugins import load_plugins
from nas.machine.threads import let_threads_sleep
from nas.study.quantities import byte_count
from nas.terminal.errors import UserError
from nas.terminal.parser import NothingFeasibleError, Parser, command_line, decibels, positive_int, run_command

if TYPE_CHECKING:
    from rich.console import Console

    from nas.finalize.job import Job
    from nas.machine.processes import Processes
    from nas.study.outcomes import Outcome
    from nas.study.run import Run

# Everything that imports torch is imported inside functions: --help has to answer at once.


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    let_threads_sleep()
    command = command_line("nas.finalize", argv)
    return run_command(lambda: finalize(arguments), continue_with=command)


def finalize(arguments: argparse.Namespace) -> None:
    """The command, in the order in which things happen."""
    from nas.distillation.recipes import recipe_for
    from nas.finalize.finish import check_out, finished_model
    from nas.machine.device import choose_device
    from nas.machine.processes import join_processes
    from nas.study.contents import contents_of_space
    from nas.study.run import chosen_run
    from nas.study.selection import choose
    from nas.terminal import console as show

    load_plugins(arguments.plugin)
    console = show.make_console()
    with join_processes() as processes:
        console.quiet = not processes.is_first
        run = chosen_run(arguments.run, partial(show.warn, console))
        run.check_contents(contents_of_space(run.settings.space))
        with run.lock() if processes.is_first else nullcontext():
            show.say(console, "run", str(run.folder) if arguments.run else f"{run.folder} (the newest)")
            out = arguments.out or run.folder / "models"
            check_out(out)
            noise_db = arguments.noise if arguments.noise is not None else recipe_for(choose_device()).spread_db or 0.0
            candidates = choose(_leaders(console, run, noise_db), arguments.top, front=arguments.front)
            job = _open_job(console, run, out, arguments, processes)
            for candidate in candidates:
                finished_model(job, candidate)  # what cannot be written over is refused before the first is made
            _finish_all(console, job, candidates)


def _finish_all(console: "Console", job: "Job", candidates: "list[Outcome]") -> None:
    """Make the models and print how good they are, beside the teacher and the linear baselines."""
    from nas.distillation.step import DivergedError
    from nas.evaluation.comparison import print_comparison
    from nas.finalize.finish import assist, finish
    from nas.finalize.rows import baseline_rows, model_row, teacher_row
    from nas.machine.batches import DoesNotFitError
    from nas.report.page import write_report
    from nas.terminal import console as show

    too_large: list[str] = []
    first = job.processes.is_first
    rows = [*baseline_rows(job), teacher_row(console, job)] if first else []
    for rank, candidate in enumerate(candidates, start=1):
        show.say(console, f"model {rank}/{len(candidates)}", f"#{candidate.number} {candidate.config.summary()}")
        try:
            if first:
                rows.append(model_row(candidate.number, finish(console, job, candidate)))
            else:
                assist(console, job, candidate)
        except DivergedError as error:
            show.warn(console, f"#{candidate.number} is left out: {error}: give it a lower rate with --recipe FILE")
        except DoesNotFitError as error:
            show.warn(console, f"#{candidate.number} is left out: {error}")
            too_large.append(f"#{candidate.number}")
    if first:
        print_comparison(console, rows)
        show.say(console, "report", str(write_report(job.run, models=job.out)))
    if too_large:
        raise UserError(
            f"{', '.join(too_large)} cannot be finished on this machine: {job.device.type} is out of memory with a "
            f"single sample: finish smaller candidates (--front) or use a device with more memory"
        )


def _open_job(
    console: "Console", run: "Run", out: Path, arguments: argparse.Namespace, processes: "Processes"
) -> "Job":
    """The teacher, its targets and everything else that models are made with."""
    from nas.data.make_targets import open_targets
    from nas.data.splits import open_clips
    from nas.distillation.recipes import recipe_for
    from nas.finalize.job import Job
    from nas.finalize.latents import open_user_latents
    from nas.finalize.stretches import open_stretches
    from nas.latency import DEFAULT_DEVICE
    from nas.latency.devices import open_predicted
    from nas.machine.device import choose_device
    from nas.study.contents import contents_of_clips, contents_of_teacher
    from nas.teachers import load_teacher
    from nas.terminal import console as show

    settings, device = run.settings, choose_device()
    recipe = recipe_for(device)
    weights = Path(settings.teacher_weights) if settings.teacher_weights else None
    teacher = load_teacher(settings.teacher, weights, device)
    show.say(console, "teacher", teacher.describe())
    for line in teacher.warnings:
        show.warn(console, line)
    folder = arguments.clips or (Path(settings.clips) if settings.clips else None)
    with show.progress(console, "clips", "looking into videos") as advance:
        clips = open_clips(folder, recipe.frames_per_clip(teacher), advance)
    run.check_contents(contents_of_teacher(teacher.name, teacher.weights_hash))
    if arguments.clips is None:
        run.check_contents(contents_of_clips(clips))
    for line in run.version_changes():
        show.warn(console, line)
    show.say(console, "clips", clips.describe())
    for line in clips.warnings():
        show.warn(console, line)
    name = arguments.recipe or recipe.full
    phases = load_phases(name)
    phases.check_batches(processes.count)
    if arguments.latents:
        clips = replace(clips, latents=open_user_latents(console, arguments.latents, teacher, phases))
    announce = partial(show.say, console, "targets")
    with processes.first_alone():
        with show.progress(console, "targets", "for evaluation") as advance:
            judging, most = recipe.judging.settings(teacher), recipe.judging.most
            unseen = open_targets(teacher, clips, judging, advance, announce, max_crops=most)
        steps, seed, most = arguments.steps, settings.seed, arguments.cache_size
        stretches = open_stretches(console, teacher, clips, phases, steps, seed=seed, max_bytes=most)
    return Job(
        run=run,
        teacher=teacher,
        recipe=name,
        stretches=stretches,
        unseen=unseen,
        device=device,
        phone=open_predicted(settings.device, DEFAULT_DEVICE),
        clips=_where_from(folder),
        out=out,
        processes=processes,
        latents=clips.latents,
    )


def _where_from(folder: Path | None) -> str:
    """Where the clips are from, in words."""
    if folder is None:
        return "the embedded clips"
    return f"clips of {folder.name}{'/' if folder.is_dir() else ''}"


def _leaders(console: "Console", run: "Run", noise_db: float) -> "list[Outcome]":
    """Candidates within the budget, best first: of those measured again, if any were, else of all."""
    from nas.study.outcomes import best_outcomes
    from nas.study.remeasure import measured_leaders
    from nas.study.sharing import outcomes_of
    from nas.terminal import console as show

    outcomes = outcomes_of(run)
    again = measured_leaders(run, outcomes)
    if again is not None:
        show.say(console, "measured", f"only candidates that meet the budget on {again[0]}, where they were measured")
    leaders = best_outcomes(outcomes if again is None else again[1], noise_db)
    if not leaders:
        raise NothingFeasibleError(f"{run.folder} has no scored candidate within the budget: search longer")
    return leaders


def make_parser() -> Parser:
    """Its arguments."""
    parser = Parser("nas.finalize", __doc__ or "")
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run folder (default: the newest)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--top",
        type=positive_int,
        default=1,
        metavar="K",
        help="finish the best K that are unlike each other (default: 1, the best within the budget)",
    )
    which.add_argument("--front", action="store_true", help="finish all that no other beats in both latency and score")
    parser.add_argument(
        "--noise",
        type=decibels,
        metavar="DB",
        help="difference up to which scores are equal, and the faster decoder is taken "
        f"(default: {CPU.spread_db:g}, the spread of seeds; with a GPU 0, as nobody has measured it there)",
    )
    parser.add_argument(
        "--steps",
        type=positive_int,
        metavar="N",
        help=f"steps of the full distillation, shared out over its phases (default: those of the recipe, "
        f"{load_phases(CPU.full).steps}, with a GPU {load_phases(GPU.full).steps})",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help=f"phases of the full distillation: {', '.join(list_recipes())}, or a TOML file like theirs "
        f"(default: {CPU.full}, with a GPU {GPU.full})",
    )
    parser.add_argument(
        "--clips",
        type=Path,
        metavar="PATH",
        help="folder of your videos, or a list of them: txt, csv, jsonl (default: those of the search)",
    )
    parser.add_argument(
        "--latents",
        type=Path,
        metavar="PATH",
        help="latents of your own to train on, too: a file or a folder of .safetensors, .npy, .pt, (b, c, t, h, w), "
        "with the values that the teacher's decode takes, not scaled as within a diffusion pipeline",
    )
    parser.add_argument(
        "--cache-size",
        type=byte_count,
        default=MAX_BYTES,
        metavar="SIZE",
        help="if the crops of a phase take more on disk, the teacher makes them as training goes, and the last ones "
        "are kept (default: 20GB)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where model folders go (default: RUN/models)")
    parser.add_plugin_option()
    return parser


if __name__ == "__main__":
    sys.exit(main())
