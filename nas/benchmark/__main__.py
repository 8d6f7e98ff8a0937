"""Measure how far a short score can be trusted: distil a sample of decoders in full, then rank by what came before.

python -m nas.benchmark curves
python -m nas.benchmark rank
python -m nas.benchmark rates
python -m nas.benchmark search
"""

import argparse
import os
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from nas.distillation.recipes import CPU
from nas.machine.plugins import load_plugins
from nas.proposals.names import DEFAULT_PROPOSER, PROPOSERS
from nas.terminal.errors import UserError
from nas.terminal.parser import (
    Parser,
    SubcommandParser,
    command_line,
    command_words,
    positive_int,
    run_command,
    seed_number,
)

if TYPE_CHECKING:
    from rich.console import Console

    from nas.data.settings import TargetSettings
    from nas.data.targets import Targets
    from nas.teachers import Teacher

_TEACHER = "wan-tiny"
"""The embedded teacher: a benchmark of this project's recipe on clips that everybody has."""
_RESULT = Path("benchmark") / "curves.json"

# Everything that imports torch is imported inside functions: --help has to answer at once.


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    command = command_line("nas.benchmark", argv)

    def run() -> None:
        load_plugins()
        arguments.run_it(arguments, command)

    return run_command(run, continue_with=command)


def curves(arguments: argparse.Namespace, command: str) -> None:
    """Distil the sample in full, one thread each, at low priority; goes on where it was cut off."""
    from nas.benchmark.curves import list_jobs, restore, run_jobs
    from nas.benchmark.design import distill_settings, make_table, open_sample
    from nas.terminal.console import make_console, progress, say

    console = make_console()
    teacher, crops, targets = _open_targets(console)
    folder = arguments.out.parent / f"{arguments.out.stem}-{targets.key}-{arguments.steps}"
    with progress(console, "sample", "drawing decoders and predicting their latency") as advance:
        wanted = arguments.per_band, arguments.seed, arguments.gmacs
        sample = open_sample(folder / "sample.json", teacher, *wanted, advance)
    settings = distill_settings(arguments.steps)
    jobs = list_jobs(sample, settings, arguments.seeds, _TEACHER, crops, folder)
    restore(jobs, arguments.out, targets.key)
    if arguments.known:
        jobs = [job for job in jobs if job.file.exists()]
        sample = [entry for entry in sample if entry.config in {job.architecture for job in jobs}]
    what = f"{len(jobs)} distillations of {len(sample)} decoders"
    say(console, "curves", f"{what}, {arguments.workers} side by side, kept in {folder}")
    with progress(console, "curves", "distilling") as advance:
        found = run_jobs(jobs, arguments.workers, advance)
    make_table(command, teacher, targets.key, arguments.steps, sample, found).save(arguments.out)
    say(console, "saved", str(arguments.out))
    say(console, "next", shlex.join([*command_words("nas.benchmark"), "rank", str(arguments.out)]))


def rank(arguments: argparse.Namespace, command: str) -> None:
    """Print how well short looks rank the decoders of a table."""
    from nas.benchmark.rank import groups, rank_looks, rank_other_seeds, spread_of_seeds
    from nas.benchmark.table import CurveTable

    table = CurveTable.load(arguments.table)
    bands = ", ".join(f"{low:g} to {high:g}" for low, high in table.bands)
    print(f"{len(table.decoders)} decoders, {len(table.curves)} curves of up to {table.distillation['steps']} steps;")
    print(f"latency bands {bands} ms per frame; {table.machine}, {table.date}")
    ceiling = rank_other_seeds(table)
    for which, digests in groups(table).items():
        found = rank_looks(table, digests)
        if ceiling is not None and which == "all decoders":
            found.append(ceiling)
        choosing, others = (spread_of_seeds(table, digests, unseen=unseen) for unseen in (False, True))
        print(
            f"\n{which}; spread of seeds: {choosing:.2f} dB on the clips that choose, {others:.2f} dB on unseen ones\n"
        )
        print("| looked at | cost | decoders | Spearman | within bands [95%] | Kendall within bands |")
        print("|---|---|---|---|---|---|")
        for each in found:
            inside = f"{each.in_bands:.2f} [{each.low:.2f}, {each.high:.2f}]"
            cells = [each.title, f"{each.cost:.0%}", str(each.decoders), f"{each.spearman:.2f}", inside]
            print(f"| {' | '.join([*cells, f'{each.kendall:.2f}'])} |")


def rates(arguments: argparse.Namespace, command: str) -> None:
    """Compare learning rates on some decoders of a table."""
    from dataclasses import asdict

    from nas.benchmark.design import describe_machine
    from nas.benchmark.rates import FACTORS, choose, compare, distil_missing, list_jobs, summary
    from nas.benchmark.table import CurveTable
    from nas.machine.files import write_json
    from nas.machine.versions import versions
    from nas.terminal.console import make_console, progress, say

    console = make_console()
    _, crops, targets = _open_targets(console)
    rows = choose(CurveTable.load(arguments.table))
    folder = arguments.out.parent / f"{arguments.out.stem}-{targets.key}"
    jobs = list_jobs(rows, arguments.steps, _TEACHER, crops, folder)
    if not arguments.known:
        with progress(console, "rates", f"{len(rows)} decoders at {len(FACTORS)} learning rates") as advance:
            distil_missing(jobs, arguments.workers, advance)
    if not (found := compare(rows, jobs)):
        raise UserError(f"{folder} has no decoder that was distilled at all rates: do without --known")
    about = {"command": command, "machine": describe_machine(), "date": date.today().isoformat()}
    what = {"steps": arguments.steps, "factors": FACTORS, "rows": [asdict(row) for row in found]}
    write_json(arguments.out, about | {"versions": versions()} | what)
    print(f"| decoder | {' | '.join(f'x {factor:g}' for factor in FACTORS)} | default behind the best |")
    print("|---|" + "---|" * (len(FACTORS) + 1))
    for row in found:
        cells = ["diverged" if score is None else f"{score:.2f}" for score in row.scores]
        print(f"| {row.title} | {' | '.join(cells)} | {row.loss:.2f} |")
    print(summary(found, CPU.spread_db or 0.0))
    say(console, "saved", str(arguments.out))


def search(arguments: argparse.Namespace, command: str) -> None:
    """Compare searches at equal processor time by what they propose, and with published designs."""
    from nas.benchmark.design import describe_machine
    from nas.benchmark.power import difference, rank_test, results
    from nas.benchmark.searches import Contest, hold
    from nas.latency import DEFAULT_DEVICE
    from nas.machine.files import write_json
    from nas.machine.versions import versions
    from nas.study.settings import RunSettings
    from nas.terminal.console import make_console, progress, say

    console = make_console()
    _, _, targets = _open_targets(console)
    folder = arguments.out.parent / f"{arguments.out.stem}-{targets.key}"
    settings = RunSettings(
        teacher=_TEACHER,
        teacher_weights=None,
        clips=None,
        budget=arguments.latency_budget,
        device=DEFAULT_DEVICE,
        height=512,
        width=512,
        frames=17,
        space="hybrid",
        steps=arguments.steps,
        seed=0,
    )
    asked = f"{settings.budget}-{arguments.steps}-{arguments.seconds}s-{arguments.full_steps}"
    contest = Contest(settings, targets, arguments.seconds, arguments.full_steps, arguments.full_seeds, folder / asked)
    with progress(console, "searches", "searching, then distilling what was found in full") as advance:
        rows = hold(contest, arguments.proposers, arguments.seeds, arguments.workers, advance)
    about = {
        "command": command,
        "machine": describe_machine(),
        "date": date.today().isoformat(),
        "versions": versions(),
    }
    write_json(arguments.out, about | {"budget": settings.budget, "rows": rows})
    found = {each.arm: each for each in results(rows)}
    first = found[arguments.proposers[0]]
    print(
        f"| what proposes | searches | best, dB on unseen clips | standard deviation | {first.arm} minus it [95%] | "
        f"pairs that {first.arm} wins |"
    )
    print("|---|---|---|---|---|---|")
    for each in found.values():
        cells = [each.arm, str(len(each.scores)), f"{each.mean:.2f}", f"{each.spread:.2f}", "", ""]
        if each is not first:
            gap, low, high = difference(first, each)
            cells[4] = f"{gap:+.2f} [{low:+.2f}, {high:+.2f}]"
        if each is not first and len(each.scores) > 1:
            share, chance = rank_test(first, each)
            cells[5] = f"{share:.0%}, p = {chance:.3f}"
        print(f"| {' | '.join(cells)} |")
    say(console, "saved", str(arguments.out))


def _open_targets(console: "Console") -> "tuple[Teacher, TargetSettings, Targets]":
    """The teacher, what students are trained and judged on, and the targets for that."""
    from nas.benchmark.design import target_settings
    from nas.data.make_targets import open_targets
    from nas.data.splits import open_clips
    from nas.teachers import load_teacher
    from nas.terminal.console import progress

    teacher = load_teacher(_TEACHER)
    crops = target_settings(teacher)
    with progress(console, "targets", "encoding and decoding clips with the teacher") as advance:
        return teacher, crops, open_targets(teacher, open_clips(None, crops.num_frames), crops, progress=advance)


def make_parser() -> Parser:
    """Its arguments."""
    parser = Parser("nas.benchmark", __doc__ or "")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=SubcommandParser)
    _add_curves(commands.add_parser("curves", help="distil a sample of decoders in full", description=curves.__doc__))
    ranking = commands.add_parser("rank", help="how well short looks rank", description=rank.__doc__)
    ranking.add_argument("table", type=Path, nargs="?", default=_RESULT, metavar="FILE", help="default: %(default)s")
    ranking.set_defaults(run_it=rank)
    _add_rates(commands.add_parser("rates", help="whether the learning rate is fair", description=rates.__doc__))
    _add_search(commands.add_parser("search", help="what searches are worth", description=search.__doc__))
    return parser


def _count(parser: argparse.ArgumentParser, name: str, default: int, what: str) -> None:
    parser.add_argument(name, type=positive_int, default=default, metavar="N", help=f"{what} (default: {default})")


def _add_known(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--known", action="store_true", help="distil nothing: make the table of what an interrupted command has left"
    )


def _add_curves(parser: argparse.ArgumentParser) -> None:
    _count(parser, "--per-band", 20, "decoders of each latency band")
    _count(parser, "--steps", 400, "steps of a full distillation")
    _count(parser, "--seeds", 3, "seeds of every third decoder; the others have one")
    _count(parser, "--workers", os.cpu_count() or 1, "distillations side by side")
    parser.add_argument(
        "--gmacs", type=float, default=1.5, metavar="G", help="most of one training sample, in billions (default: 1.5)"
    )
    parser.add_argument("--seed", type=seed_number, default=0, metavar="N", help="seed of the sample (default: 0)")
    _add_known(parser)
    parser.add_argument("--out", type=Path, default=_RESULT, metavar="FILE", help="the table (default: %(default)s)")
    parser.set_defaults(run_it=curves)


def _add_rates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, nargs="?", default=_RESULT, metavar="FILE", help="default: %(default)s")
    _count(parser, "--steps", CPU.short_steps, "steps of a distillation")
    _count(parser, "--workers", os.cpu_count() or 1, "distillations side by side")
    _add_known(parser)
    out = Path("benchmark") / "rates.json"
    parser.add_argument("--out", type=Path, default=out, metavar="FILE", help="what was found (default: %(default)s)")
    parser.set_defaults(run_it=rates)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency-budget", default="4.7ms", metavar="TIME", help="default: %(default)s")
    parser.add_argument(
        "--proposers",
        nargs="+",
        choices=PROPOSERS,
        default=[DEFAULT_PROPOSER, "random"],
        metavar="NAME",
        help=f"what is compared, the first with all others: {', '.join(PROPOSERS)} (default: %(default)s)",
    )
    _count(parser, "--seconds", 300, "processor time of each search, in seconds")
    _count(parser, "--seeds", 5, "searches of each kind")
    _count(parser, "--steps", CPU.short_steps, "steps of a short distillation")
    _count(parser, "--full-steps", 1200, "steps of a full distillation")
    _count(parser, "--full-seeds", 2, "full distillations of what is found")
    _count(parser, "--workers", os.cpu_count() or 1, "searches side by side")
    out = Path("benchmark") / "searches.json"
    parser.add_argument("--out", type=Path, default=out, metavar="FILE", help="what was found (default: %(default)s)")
    parser.set_defaults(run_it=search)


if __name__ == "__main__":
    sys.exit(main())
