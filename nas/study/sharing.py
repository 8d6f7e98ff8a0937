"""What a study on a server knows of its search, so that others can join it, and the study of a run wherever it is."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from nas.machine.files import disk_errors
from nas.machine.records import read_fields
from nas.machine.temporary import sweep
from nas.study.contents import changes, in_one_line
from nas.study.options import parse_time
from nas.study.outcomes import Outcome, read_outcomes
from nas.study.peers import NoPeers, Peers, ServerPeers
from nas.study.retries import OnGivenUp
from nas.study.run import RUNS_FOLDER, Run
from nas.study.server import Heart, StudyServer
from nas.study.settings import RunSettings, difference
from nas.study.study import find_shared_study, load_shared_study, load_study, open_shared_study, open_study
from nas.terminal.errors import UserError

_ATTRIBUTE = "search"
"""User attribute of the study that holds all of it."""
_FORMAT = 1


@dataclass(frozen=True)
class SharedSearch:
    """What whoever joins a search has to know."""

    format: int
    """Version of this record."""
    settings: dict[str, Any]
    """Fields of `RunSettings`."""
    contents: dict[str, dict[str, str]]
    """Digests of everything that the numbers depend on: see `nas.study.contents`."""
    trials: int
    """Candidates to train, by all searches together."""
    grace: int
    """Seconds that a search may be silent before its trials are given to others."""


@contextmanager
def shared_server(arguments: argparse.Namespace, on_wait: Callable[[str], None]) -> Iterator[StudyServer | None]:
    """The server that a search keeps its study on; None if it keeps it in its run folder.

    The options of a search that joins another are set to those of that one.

    Args:
        arguments: options of the search.
        on_wait: called with one line when the server is found to be away.

    Raises:
        UserError: the server cannot be used, or there is no such study to join.
    """
    if arguments.storage is None:
        yield None
        return
    grace = max(1, round(parse_time(arguments.grace, "time of silence")))
    server = StudyServer(arguments.storage, grace, on_wait=on_wait)
    try:
        if arguments.join is not None and (grace := join_search(arguments, server)) != server.grace:
            server.close()
            server = StudyServer(arguments.storage, grace, on_wait=on_wait)
        yield server
    finally:
        server.close()


def join_search(arguments: argparse.Namespace, server: StudyServer) -> int:
    """Set the options of a search to those of the one that it joins.

    Args:
        arguments: its options; `join` is the name of the study.
        server: where the study is.

    Returns:
        Seconds that a search may be silent there.

    Raises:
        UserError: there is no such study, or it is not of this program.
    """
    shared = _read(find_shared_study(server, arguments.join), server)
    settings = read_fields(RunSettings, shared.settings)
    arguments.teacher, arguments.latency_budget, arguments.device = settings.teacher, settings.budget, settings.devices
    arguments.max_params, arguments.max_memory = settings.max_params, settings.max_memory
    arguments.max_size = settings.max_size
    arguments.resolution, arguments.frames = f"{settings.height}x{settings.width}", settings.frames
    arguments.space, arguments.steps, arguments.seed = settings.space, settings.steps, settings.seed
    arguments.trials, arguments.proposer = shared.trials, settings.proposer
    arguments.plugin = [*settings.plugins, *arguments.plugin]
    for name in ("teacher_weights", "clips"):
        path = getattr(settings, name)
        setattr(arguments, name, getattr(arguments, name) or (Path(path) if path else None))
    arguments.run = arguments.run or RUNS_FOLDER / arguments.join
    return shared.grace


@contextmanager
def claimed(run: Run) -> Iterator[None]:
    """Work in the folder of a run: alone, unless its study is on a server.

    Searches that share a study may share the folder, too: what they write has the number of a trial in its name.

    Raises:
        UserError: another process is working in it, or it cannot be written.
    """
    if run.storage:
        with disk_errors(f"cannot write to {run.folder}"):
            sweep(run.folder)
        yield
    else:
        with run.lock():
            yield


@contextmanager
def study_of(
    run: Run, sampler: BaseSampler, server: StudyServer | None, trials: int, on_given_up: OnGivenUp
) -> Iterator[tuple[optuna.Study, Peers]]:
    """The study of a run, to work on, and the other searches that do.

    Args:
        run: the run.
        sampler: decides on proposals.
        server: where the study is; None if it is in the run folder.
        trials: candidates to train.
        on_given_up: told of proposals that were cut off too often.

    Raises:
        UserError: the study is damaged, or of a search with other settings or contents.
    """
    if server is None:
        study = open_study(run.storage_url, sampler, steps=run.settings.steps, on_given_up=on_given_up)
        yield study, NoPeers()
        return
    study = open_shared_study(server, run.study, sampler, run.settings.steps)
    with server.turn(run.study):
        _announce(study, run, trials, server)
    with Heart(server, run.study) as heart:
        yield study, ServerPeers(server, study, heart, on_given_up)


@contextmanager
def study_to_read(run: Run) -> Iterator[optuna.Study]:
    """The study of a run, wherever it is, to read.

    Raises:
        UserError: its study is not there or cannot be read.
    """
    if not run.storage:
        yield load_study(run.storage_url)
        return
    with closing(StudyServer(run.storage)) as server:
        yield load_shared_study(server, run.study)


def outcomes_of(run: Run) -> list[Outcome]:
    """What became of every finished proposal of a run; UserError as `study_to_read`."""
    with study_to_read(run) as study:
        return read_outcomes(study)


def _announce(study: optuna.Study, run: Run, trials: int, server: StudyServer) -> None:
    """Say in the study what the search is, or see that this one is the same."""
    mine = SharedSearch(
        _FORMAT, asdict(run.settings), {k: dict(v) for k, v in run.contents.items()}, trials, server.grace
    )
    if _ATTRIBUTE in study.user_attrs:
        shared = _read(study, server)
        remedy = "do as it was done there, or choose another name for the study with --run"
        made = read_fields(RunSettings, shared.settings)
        # Where weights and clips are differs from machine to machine; what is in them may not.
        made = replace(made, teacher_weights=run.settings.teacher_weights, clips=run.settings.clips)
        if differing := difference(made, run.settings):
            raise UserError(f"the study '{study.study_name}' of {server.place} was made with {differing}: {remedy}")
        if changed := changes(shared.contents, run.contents):
            raise UserError(
                f"the study '{study.study_name}' of {server.place} was made with something else "
                f"({in_one_line(changed)}), and what is found here would not be comparable: {remedy}"
            )
    study.set_user_attr(_ATTRIBUTE, asdict(mine))


def _read(study: optuna.Study, server: StudyServer) -> SharedSearch:
    try:
        shared = read_fields(SharedSearch, study.user_attrs.get(_ATTRIBUTE))
        if shared.format != _FORMAT:
            raise ValueError("it is of another version of this program")
        read_fields(RunSettings, shared.settings)
    except ValueError as error:
        raise UserError(
            f"the study '{study.study_name}' of {server.place} cannot be joined ({error}): start a new one with "
            f"python -m nas.search --storage ... --run DIR"
        ) from error
    return shared
