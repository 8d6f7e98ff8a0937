"""Measure latency on a device: make a profile of it, offer it to others, re-measure a search on it.

python -m nas.latency calibrate --device host
python -m nas.latency serve --device host
python -m nas.latency measure RUN --device http://mac:8765
"""

import argparse
import os
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.latency.agent import TOKEN_VARIABLE
from nas.machine.plugins import load_plugins
from nas.terminal.errors import UserError
from nas.terminal.parser import Parser, SubcommandParser, command_line, positive_int, run_command, seed_number

if TYPE_CHECKING:
    from rich.console import Console

    from nas.latency.devices import HostDevice
    from nas.latency.prediction.calibrated_profile import CalibratedProfile

# Everything that imports torch is imported inside functions: --help has to answer at once.


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    command = command_line("nas.latency", argv)

    def run() -> None:
        load_plugins(arguments.plugin)
        arguments.run_it(arguments)

    # A calibration keeps nothing until its end; the queue of an agent and what was measured again is kept.
    return run_command(run, continue_with=None if arguments.run_it is calibrate else command)


def calibrate(arguments: argparse.Namespace) -> None:
    """Measure small decoders on a device, fit a profile to them, and print how well it predicts others."""
    from nas.latency.calibrate import make_profile, measure_programs
    from nas.latency.calibration_design import design_programs
    from nas.latency.devices import HOST, open_device
    from nas.latency.prediction.profile_files import check_new_profile
    from nas.machine.files import disk_errors, write_json
    from nas.terminal.console import make_console, progress, say

    if arguments.held_out < 2:
        raise UserError(f"--held-out has to be at least 2 decoders, which can be ranked, got {arguments.held_out}")
    console = make_console()
    check_new_profile(arguments.out)
    device = _host_in_turns() if arguments.device == HOST else open_device(arguments.device)
    if device.kind != "measured":
        raise UserError(
            f"--device {arguments.device} is predicted, not measured: give host, coreml, iphone or an agent"
        )
    gmacs = (arguments.gmacs / 20, arguments.gmacs)
    with progress(console, "drawing") as advance:
        fitted, unseen = design_programs(arguments.decoders, arguments.held_out, arguments.seed, gmacs, advance)
    say(console, "decoders", f"{len(fitted)} to fit to, {len(unseen)} others to judge by, {arguments.passes} passes")
    with progress(console, "measuring") as advance:
        records = measure_programs(device, [*fitted, *unseen], arguments.passes, advance)
    of_fitted, of_unseen = records[: len(fitted)], records[len(fitted) :]
    profile = make_profile(fitted, of_fitted, unseen, of_unseen, device.runtime, arguments.passes)
    with disk_errors("cannot write the profile"):
        write_json(arguments.out, profile.to_dict())
    print_profile(console, profile)
    say(console, "saved", str(arguments.out))
    # A name that begins with a dash would be taken for an option.
    name = f"./{arguments.out}" if str(arguments.out).startswith("-") else str(arguments.out)
    say(console, "next", f"python -m nas.search --latency-budget 30ms --device {shlex.quote(name)}")


def print_profile(console: "Console", profile: "CalibratedProfile") -> None:
    """Print every decoder that the fit has not seen, then the errors."""
    from nas.terminal.console import say

    console.print(f"{'ms per decode: measured':>23} {'predicted':>9} {'error':>6}  size, decoder", style="bold")
    for point in sorted(profile.points, key=lambda each: each.measured_ms):
        size = f"{point.height}x{point.width}x{point.num_frames}"
        numbers = f"{point.measured_ms:23.1f} {point.predicted_ms:9.1f} {point.error:+6.0%}"
        console.print(f"{numbers}  {size:11} {point.decoder}", markup=False, soft_wrap=True)
    say(console, "device", f"{profile.device}, {profile.dtype}, {profile.method}")
    say(
        console,
        "error",
        f"median {profile.typical_error:.1%}, 90th percentile {profile.p90_error:.1%}, "
        f"rank correlation {profile.rank_correlation:.3f} on {len(profile.points)} unseen decoders "
        f"(fitted to {profile.fitted_to})",
    )


def serve(arguments: argparse.Namespace) -> None:
    """Offer a device of this machine over HTTP until interrupted."""
    from nas.latency.agent.answers import LONGEST_S
    from nas.latency.agent.exchange import check_token
    from nas.latency.agent.server import serve_device

    token = os.environ.get(TOKEN_VARIABLE)
    if arguments.token_file is not None:
        try:
            token = arguments.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UserError(f"cannot read the token in {arguments.token_file}: {reason}") from error
    if token or arguments.token_file is not None:
        check_token(token or "", str(arguments.token_file or TOKEN_VARIABLE))
    if arguments.time_limit > LONGEST_S:
        raise UserError(f"--time-limit has to be at most {LONGEST_S} s, a day, got {arguments.time_limit}")
    serve_device(
        arguments.device,
        arguments.folder,
        bind=arguments.bind,
        port=arguments.port,
        token=token or None,
        largest_upload=arguments.largest_upload * 10**6,
        time_limit_s=arguments.time_limit,
    )


def measure(arguments: argparse.Namespace) -> None:
    """Measure the best candidates of a search again, on another device."""
    from nas.study.remeasure import remeasure
    from nas.study.run import chosen_run
    from nas.terminal.console import make_console, warn

    console = make_console()
    run = chosen_run(arguments.run, partial(warn, console))
    remeasure(console, run, arguments.device, arguments.top)


def make_parser() -> Parser:
    """The parser of the command line."""
    parser = Parser("nas.latency", __doc__ or "")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=SubcommandParser)
    _add_calibrate(
        commands.add_parser("calibrate", help="make a latency profile of a device", description=calibrate.__doc__)
    )
    _add_serve(commands.add_parser("serve", help="offer a device over HTTP", description=serve.__doc__))
    _add_measure(
        commands.add_parser(
            "measure", help="measure the best candidates of a search again", description=measure.__doc__
        )
    )
    return parser


def _add_calibrate(parser: Parser) -> None:
    parser.add_argument(
        "--device",
        default="host",
        help="device to measure: host, coreml, iphone or an agent's http:// address (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("host.json"), metavar="FILE", help="profile to write (default: %(default)s)"
    )
    parser.add_argument(
        "--decoders", type=positive_int, default=60, metavar="N", help="decoders to fit to (default: 60)"
    )
    parser.add_argument(
        "--held-out",
        type=positive_int,
        default=30,
        metavar="N",
        help="other decoders to judge the fit by (default: 30)",
    )
    parser.add_argument(
        "--passes", type=positive_int, default=3, metavar="N", help="measurements of every decoder (default: 3)"
    )
    parser.add_argument(
        "--gmacs",
        type=positive_int,
        default=8,
        metavar="G",
        help="multiply-accumulates of the largest decode, in billions (default: 8)",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, metavar="N", help="seed of the choice of decoders (default: 0)"
    )
    parser.add_plugin_option()
    parser.set_defaults(run_it=calibrate)


def _add_serve(parser: Parser) -> None:
    parser.add_argument(
        "--device", default="host", help="device to offer: host, coreml or iphone (default: %(default)s)"
    )
    parser.add_argument(
        "--bind", default="127.0.0.1", metavar="HOST", help="address to listen at (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8765,
        metavar="N",
        help="port to listen at, 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"file with the bearer token (default: the token in {TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("latency-agent"),
        metavar="DIR",
        help="folder of the queue and the results (default: %(default)s)",
    )
    parser.add_argument(
        "--largest-upload",
        type=positive_int,
        default=512,
        metavar="MB",
        help="largest upload that is accepted, in megabytes (default: 512)",
    )
    parser.add_argument(
        "--time-limit",
        type=positive_int,
        default=900,
        metavar="S",
        help="longest measurement, in seconds (default: 900)",
    )
    parser.add_plugin_option()
    parser.set_defaults(run_it=serve)


def _add_measure(parser: Parser) -> None:
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run folder (default: the newest)")
    parser.add_argument(
        "--device", required=True, help="device to measure on: host, coreml, iphone or an agent's http:// address"
    )
    parser.add_argument(
        "--top", type=positive_int, default=5, metavar="K", help="number of candidates to measure (default: 5)"
    )
    parser.add_plugin_option()
    parser.set_defaults(run_it=measure)


def _host_in_turns() -> "HostDevice":
    """This machine, measured in short rounds: a decode takes a fraction of a second and has its turn in every pass.

    Where one thread computes, it is timed by its CPU time, which leaves out other processes' turns.
    """
    import torch

    from nas.latency.devices import HostDevice
    from nas.machine.device import choose_device

    device = choose_device()
    one_thread = device.type == "cpu" and torch.get_num_threads() == 1
    return HostDevice(device, time_limit_s=0.5, clock=time.process_time if one_thread else time.perf_counter)


if __name__ == "__main__":
    sys.exit(main())
