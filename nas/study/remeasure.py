"""Measure the leaders of a search again, and rank them by what was measured alone.

RUN/measured/<device>.json holds every measurement; a ranking that comes from it has no predicted latency in it.
"""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.latency.budget import format_ms
from nas.latency.devices import LatencyDevice, open_device
from nas.latency.record import LatencyRecord, MeasurementFailedError, Workload
from nas.machine.files import disk_errors, read_json, write_json
from nas.machine.records import read_fields
from nas.study.constraints import all_met
from nas.study.contents import contents_of_space
from nas.study.outcomes import Outcome, best_outcomes
from nas.study.run import Run
from nas.study.sharing import outcomes_of
from nas.terminal.console import progress, say, warn
from nas.terminal.errors import UserError
from nas.terminal.parser import NothingFeasibleError
from search_spaces import Decoder, build_skeleton

if TYPE_CHECKING:
    from rich.console import Console

_FOLDER = "measured"


def remeasure(console: "Console", run: Run, device_name: str, top: int) -> None:
    """Measure the best candidates of a search on a device, keep the numbers, print the new ranking.

    Raises:
        UserError: the device predicts, cannot be used, or the search has no scored candidate.
        NothingFeasibleError: none of the candidates meets the budget where it was measured.
    """
    device = open_device(device_name)
    if device.kind != "measured":
        raise UserError(f"--device {device_name} is predicted: give host, coreml, iphone or an agent's http:// address")
    candidates = best_outcomes(outcomes_of(run))[:top]
    if not candidates:
        raise UserError(f"{run.folder} has no scored candidate: search longer")
    workload = run.settings.workload
    run.check_contents(contents_of_space(run.settings.space))
    for line in run.version_changes():
        warn(console, line)
    say(console, "run", str(run.folder))
    say(console, "budget", f"{run.settings.describe_constraints()} {device.describe(workload)}")
    with run.lock():
        for candidate in candidates:
            with progress(console, "latency", f"of #{candidate.number}"):
                try:
                    record = _measure(device, candidate, workload)
                except MeasurementFailedError as error:
                    warn(console, f"the device cannot run #{candidate.number} {candidate.config.summary()}: {error}")
                    continue
            _keep(run, device_name, candidate, record)
    _print_ranking(console, run, candidates, device_name)


def measured_leaders(run: Run, outcomes: list[Outcome]) -> tuple[str, list[Outcome]] | None:
    """The scored candidates that were measured again and meet the budget, best first, and on which device.

    The latency of each is the measured one. The device measured last counts; None if there is none.
    """
    device, records = latest_measurements(run)
    if not records:
        return None
    return device, [each for each in _measured(records, outcomes) if _is_feasible(run, each)]


def latest_measurements(run: Run) -> tuple[str, dict[str, LatencyRecord]]:
    """The device that candidates were measured on last, and latencies by digest of the architecture; "" if none was.

    Raises:
        UserError: the file of the measurements is damaged.
    """
    files = sorted((run.folder / _FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        return "", {}
    found = _read(files[-1])
    return found.device, _records_of(found)


def _is_feasible(run: Run, outcome: Outcome) -> bool:
    return all_met(run.settings.constraints, outcome.costs.values())


def _measure(device: LatencyDevice, candidate: Outcome, workload: Workload) -> LatencyRecord:
    decoder = Decoder(candidate.config) if device.needs_weights else build_skeleton(candidate.config)
    return device.latency(decoder, candidate.config.latents, workload)


def _path(run: Run, device_name: str) -> Path:
    return run.folder / _FOLDER / f"{re.sub(r'[^A-Za-z0-9.]+', '-', device_name).strip('-')}.json"


@dataclass(frozen=True)
class _Measurements:
    """What a file of measurements holds."""

    device: str
    """Device that was asked for."""
    records: dict[str, dict[str, Any]]
    """Digest of a decoder -> its latency record."""


def _read(path: Path) -> _Measurements:
    """The measurements in a file; UserError if it is not what this program wrote."""
    try:
        found = read_fields(_Measurements, read_json(path))
        for record in found.records.values():
            LatencyRecord.from_dict(record)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path} is not what this program wrote ({error}): delete it, then measure again") from error
    return found


def _records_of(found: _Measurements) -> dict[str, LatencyRecord]:
    return {digest: LatencyRecord.from_dict(record) for digest, record in found.records.items()}


def _keep(run: Run, device_name: str, candidate: Outcome, record: LatencyRecord) -> None:
    path = _path(run, device_name)
    before = _read(path) if path.exists() else _Measurements(device_name, {})
    records = {**before.records, candidate.config.digest(): record.to_dict()}
    with disk_errors("cannot write the measurements"):
        write_json(path, asdict(replace(before, records=records)))


def _measured(records: dict[str, LatencyRecord], outcomes: list[Outcome]) -> list[Outcome]:
    """Scored candidates with a measurement, best first, each with its measured latency."""
    known = [
        replace(each, latency=records[each.config.digest()]) for each in outcomes if each.config.digest() in records
    ]
    return best_outcomes(known)


def _print_ranking(console: "Console", run: Run, candidates: list[Outcome], device_name: str) -> None:
    """What was measured, best first; what the search said about it only as a column."""
    path = _path(run, device_name)
    if not path.exists():
        raise NothingFeasibleError(f"the device can run none of the {len(candidates)} best candidates")
    ranked = _measured(_records_of(_read(path)), candidates)
    budget = run.settings.constraints[0].limit
    before = {each.number: each.latency for each in candidates}
    star = "*" if candidates[0].latency.kind == "predicted" else ""
    console.print(f"{'#':>3} {'dB':>6} {'ms/frame':>9} {'in search':>10}  decoder", style="bold")
    for each in ranked:
        over = "" if _is_feasible(run, each) else "  (over budget)"
        numbers = f"{each.number:3} {each.score:6.2f} {format_ms(each.latency.ms_per_frame, budget):>9}"
        was = f"{format_ms(before[each.number].ms_per_frame)}{star}"
        console.print(f"{numbers} {was:>10}  {each.config.summary()}{over}", markup=False, soft_wrap=True)
    first = ranked[0].latency
    say(console, "measured", f"ms/frame: {first.describe().split(' ', 1)[1]}")
    say(console, "in search", f"ms/frame{star}: {candidates[0].latency.describe().split(' ', 1)[1]}")
    say(console, "saved", str(path))
    if not any(_is_feasible(run, each) for each in ranked):
        fastest = min(ranked, key=lambda each: each.latency.ms_per_frame)
        raise NothingFeasibleError(
            f"no candidate meets {run.settings.describe_constraints()} where it was measured; the fastest is "
            f"#{fastest.number}: {fastest.latency.describe()}"
        )
    say(console, "next", f"python -m nas.finalize {run.folder}")
