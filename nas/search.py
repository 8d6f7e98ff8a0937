"""Search small decoders for a video VAE's latents under a latency budget.

python -m nas.search --teacher wan-tiny --latency-budget 30ms
"""

import argparse
import shlex
import sys
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from nas.machine.plugins import load_plugins
from nas.machine.threads import let_threads_sleep
from nas.study.options import (
    add_options,
    check_fit,
    check_sharing,
    describe_budget,
    open_devices,
    run_settings,
    study_limits,
    timed_decode,
)
from nas.terminal.parser import NothingFeasibleError, Parser, command_line, run_command

if TYPE_CHECKING:
    import optuna
    import torch
    from rich.console import Console

    from nas.data.splits import ClipSet
    from nas.study.limits import BudgetUnreachableError, Ending, StudyLimits
    from nas.study.loop import Events
    from nas.study.outcomes import Outcome
    from nas.study.run import Run
    from nas.study.server import StudyServer
    from nas.study.settings import RunSettings
    from nas.study.short_distillation import DistilledCandidate, ShortDistillation
    from nas.study.table import TrialTable
    from nas.teachers import Teacher
    from nas.workers.pool import Pool
    from search_spaces import DecoderConfig, SearchSpace

# Everything that imports torch is imported inside functions: --help has to answer at once.


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    let_threads_sleep()
    parser = make_parser()
    arguments = parser.parse_args(argv)
    check_sharing(parser, arguments)
    if arguments.status is not None:
        return run_command(lambda: say_status(arguments), continue_with=None)
    command = command_line("nas.search", argv)
    return run_command(lambda: start(arguments), continue_with=command)


def start(arguments: argparse.Namespace) -> None:
    """Open what outlasts a search or runs beside it: the server of its study, and the pool that trains."""
    from nas.machine.device import choose_device
    from nas.study.sharing import shared_server
    from nas.terminal import console as show
    from nas.workers import make_pool

    console = show.make_console()
    with shared_server(arguments, partial(show.warn, console)) as server:
        pool, training = make_pool(choose_device(), arguments.workers, arguments.ray)
        with closing(pool):
            search(console, arguments, server, pool, training)


def say_status(arguments: argparse.Namespace) -> None:
    """How the search in a folder is doing."""
    from nas.study.run import load_run
    from nas.study.status import print_status
    from nas.terminal import console as show

    load_plugins(arguments.plugin)
    run = load_run(arguments.status)
    load_plugins(run.settings.plugins)
    print_status(show.make_console(), run)


def search(
    console: "Console",
    arguments: argparse.Namespace,
    server: "StudyServer | None",
    pool: "Pool",
    training: "torch.device",
) -> None:
    """The search, in the order in which things happen; `training` is where the pool trains."""
    from nas.data.make_targets import open_targets
    from nas.data.splits import open_clips
    from nas.distillation.recipes import recipe_for
    from nas.machine.device import choose_device
    from nas.study import contents
    from nas.study.imports import find_earlier_run
    from nas.study.run import open_run
    from nas.study.sharing import claimed
    from nas.study.short_distillation import ShortDistillation
    from nas.study.storage import database_errors
    from nas.teachers import load_teacher, published_latents
    from nas.terminal import console as show
    from search_spaces import SEARCH_SPACES

    load_plugins(arguments.plugin)
    found = contents.contents_of_space(arguments.space)
    devices = open_devices(arguments)
    recipe = recipe_for(training)
    limits = study_limits(arguments, recipe)
    # Weights take a while; whether the decode fits the teacher is known from its publication.
    workload = timed_decode(arguments, published_latents(arguments.teacher))
    settings = run_settings(arguments, workload, recipe)
    pool.get_ready()
    teacher = load_teacher(settings.teacher, arguments.teacher_weights, choose_device())
    check_fit(workload, teacher.spec, teacher.name)
    with show.progress(console, "clips", "looking into videos") as advance:
        clips = open_clips(arguments.clips, recipe.frames_per_clip(teacher), advance)
    found |= contents.contents_of_teacher(teacher.name, teacher.weights_hash)
    found |= contents.contents_of_clips(clips)
    found |= contents.contents_of_devices(devices.values(), workload)
    found |= contents.contents_of_recipe(recipe, settings.steps, settings.seed)
    old = find_earlier_run(arguments.from_run, arguments.run, settings, found)
    place = ("", "") if server is None else (server.address, arguments.join or "")
    run, existed = open_run(settings, arguments.run, found, partial(show.warn, console), *place)
    with claimed(run):
        space = SEARCH_SPACES[settings.space]
        _say_what_is_distilled(console, run, teacher, clips)
        for line in describe_budget(settings, devices):
            show.say(console, "budget", line)
        show.say(console, "space", f"{space.name}, {show.format_count(space.size(teacher.spec))} decoders")
        show.say(console, "run", f"{run.folder} ({'continued' if existed else 'new'})")
        if server is not None:
            show.say(console, "study", f"'{run.study}' on {server.place}")
        with show.progress(console, "targets", "encoding and decoding clips with the teacher") as advance:
            announce = partial(show.say, console, "targets")
            crops, most = recipe.short.settings(teacher), recipe.short.most
            targets = open_targets(teacher, clips, crops, progress=advance, announce=announce, max_crops=most)
        with database_errors(run.folder):
            first, *more = devices.values()
            further = dict(zip(settings.more_devices, more, strict=True))
            trained = ShortDistillation(run, targets, first, training, recipe, further)
            run_trials(console, trained, space, limits, pool, server, old)


def _say_what_is_distilled(console: "Console", run: "Run", teacher: "Teacher", clips: "ClipSet") -> None:
    from nas.terminal import console as show

    show.say(console, "teacher", teacher.describe())
    for line in teacher.warnings:
        show.warn(console, line)
    show.say(console, "clips", clips.describe())
    for line in [*clips.warnings(), *run.version_changes()]:
        show.warn(console, line)


def run_trials(
    console: "Console",
    distillation: "ShortDistillation",
    space: "SearchSpace",
    limits: "StudyLimits",
    pool: "Pool",
    server: "StudyServer | None" = None,
    old: "Run | None" = None,
) -> None:
    """Open the study, run its trials under a live table, print what was found."""
    from nas.study.imports import import_trials
    from nas.study.limits import BudgetUnreachableError
    from nas.study.loop import run_study
    from nas.study.outcomes import read_outcomes, trained_count
    from nas.study.proposals import budget_of, sampler_of
    from nas.study.sharing import study_of
    from nas.study.table import TrialTable
    from nas.terminal import console as show

    run = distillation.run
    constraints = run.settings.constraints
    given_up: list[tuple[int, str]] = []
    budget = budget_of(distillation)
    sampler = sampler_of(distillation, space, budget)
    with (
        show.StatusLine(console) as status,
        study_of(run, sampler, server, limits.trials, lambda *trial: given_up.append(trial)) as (study, peers),
    ):
        distillation.sweep(study)
        table = TrialTable(console, limits, status, trained_count(study), constraints[0].limit)
        table.header()
        for outcome in read_outcomes(study):
            table.replay(outcome)
        events = _events(table, run, study, given_up)

        def make_candidate(config: "DecoderConfig") -> "DistilledCandidate":
            table.waiting(config)
            return distillation.candidate(config)

        asked = study, space, distillation.targets.spec, constraints, limits, make_candidate, pool, run.settings.steps
        if old is not None:
            with peers.turn():
                import_trials(study, old, constraints, make_candidate, table.take_over, table.unmeasured)
        try:
            ending = run_study(*asked, events, measured_here=distillation.is_measured, peers=peers, budget=budget)
        except BudgetUnreachableError as error:
            raise NothingFeasibleError(_nothing_feasible(run.settings, error)) from error
        events.on_tick({})
        table.catch_up(read_outcomes(study))
    _say_what_was_found(console, distillation, table, study, _why_stopped(ending, limits))


def _events(table: "TrialTable", run: "Run", study: "optuna.Study", given_up: "list[tuple[int, str]]") -> "Events":
    """What is shown of a search, and looked after, while it goes on."""
    from nas.study.loop import Events
    from nas.study.outcomes import read_outcomes
    from nas.study.presence import Presence

    present = Presence.of(run.folder, "config.json", *(() if run.storage else ("study.db",)))

    def on_outcome(outcome: "Outcome") -> None:
        table.catch_up(read_outcomes(study) if run.storage else [outcome])

    def on_tick(running: dict[int, int]) -> None:
        present.check()
        while given_up:
            table.given_up(*given_up.pop(0))
        table.progress(running, run.settings.steps)

    on_tick({})
    return Events(on_outcome, table.unmeasured, table.unbuildable, on_tick, table.lost)


def _say_what_was_found(
    console: "Console", distillation: "ShortDistillation", table: "TrialTable", study: "optuna.Study", stopped: str
) -> None:
    from nas.report.page import write_report
    from nas.study.outcomes import best_outcomes, read_outcomes
    from nas.study.rows import print_front
    from nas.terminal import console as show

    run, latency_device, found = distillation.run, distillation.latency_device, read_outcomes(study)
    if not best_outcomes(found):
        raise NothingFeasibleError("no candidate was scored: give the search more --trials or time (--time-limit)")
    mark = "*" if latency_device.kind == "predicted" else ""
    decode = latency_device.describe(distillation.workload)
    console.print(f"ms/frame{mark}: per decoded frame {decode}", style="dim", soft_wrap=True)
    show.say(console, "trials", table.counts())
    if stopped:
        show.say(console, "stopped", stopped)
    print_front(console, found, run.settings.constraints[0].limit, distillation.recipe.spread_db)
    show.say(console, "saved", str(run.folder))
    show.say(console, "report", str(write_report(run, study=study)))
    show.say(console, "next", shlex.join(["python", "-m", "nas.finalize", str(run.folder)]))


def _why_stopped(ending: "Ending", limits: "StudyLimits") -> str:
    """Why a search ended before all of its candidates were trained, in words; empty if they all were."""
    from nas.terminal.console import format_seconds

    if ending == "nothing new":
        return f"the last {limits.fruitless} proposals gave nothing new to train"
    if ending == "time":
        limit = limits.seconds or 0.0
        written = format_seconds(limit) if limit >= 1 else f"{limit:g} s"
        return f"the time limit of {written} is over: the same command goes on"
    return ""


def make_parser() -> Parser:
    """Its arguments."""
    parser = Parser("nas.search", __doc__ or "")
    add_options(parser)
    return parser


def _nothing_feasible(settings: "RunSettings", error: "BudgetUnreachableError") -> str:
    from nas.study.costs import latency_on

    closest, constraint = error.closest, error.constraint
    start = (
        f"no decoder of the space '{settings.space}' that was proposed meets {settings.describe_constraints()}; "
        f"the {'fastest' if len(settings.constraints) == 1 else 'closest'} is {closest.config.summary()}: "
    )
    latency = {"latency": closest.latency, **{latency_on(name): each for name, each in closest.latencies.items()}}
    if constraint.name not in latency:
        return f"{start}{constraint.describe_value(error.value)}"
    record = latency[constraint.name]
    stage = record.dominant_stage()
    share = 100 * record.by_stage[stage] / sum(record.by_stage.values())
    return f"{start}{record.describe()}, {share:.0f}% of it in {stage}"


if __name__ == "__main__":
    sys.exit(main())
