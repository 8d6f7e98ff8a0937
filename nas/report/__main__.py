"""Write the report of a search and its finished models: one HTML file.

python -m nas.report
python -m nas.report runs/phone --out phone.html
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from nas.machine.plugins import load_plugins
from nas.terminal.parser import Parser, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    return run_command(lambda: report(arguments), continue_with=None)


def report(arguments: argparse.Namespace) -> None:
    """Read the run, write the page."""
    from nas.report.page import write_report
    from nas.study.run import chosen_run
    from nas.terminal import console as show

    load_plugins(arguments.plugin)
    console = show.make_console()
    run = chosen_run(arguments.run, partial(show.warn, console))
    show.say(console, "run", str(run.folder) if arguments.run else f"{run.folder} (the newest)")
    show.say(console, "report", str(write_report(run, arguments.out, arguments.models)))


def make_parser() -> Parser:
    """Its arguments."""
    parser = Parser("nas.report", __doc__ or "")
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run folder (default: the newest)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: RUN/report.html)")
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of finished models (default: RUN/models)")
    parser.add_plugin_option()
    return parser


if __name__ == "__main__":
    sys.exit(main())
