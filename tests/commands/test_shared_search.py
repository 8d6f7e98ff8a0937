"""Searches that share a study on a real PostgreSQL server, each a process with a run folder of its own."""

import signal
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from nas.study.outcomes import TRAINED, best_outcomes, read_outcomes
from nas.study.run import load_run
from nas.study.server import StudyServer
from nas.study.sharing import outcomes_of
from nas.study.study import load_shared_study
from tests.commands.test_kill import check_files_are_whole
from tests.support.commands import TIMEOUT, Inputs, Shell, make_run, wait_for_file
from tests.support.errors import refusal
from tests.support.postgres import PostgresServer
from tests.support.run_folders import list_files

TRIALS = 4
BUDGET_MS = 0.2
"""That of `Inputs.arguments`."""


@pytest.fixture
def shells(tmp_path: Path, inputs: Inputs) -> list[Shell]:
    """Folders of machines that share nothing but a cache."""
    make_run(inputs)  # whose targets serve these
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
    return [Shell(folder, inputs.cache) for folder in folders]


def arguments(inputs: Inputs, postgres: PostgresServer, run: str, *more: str) -> list[str]:
    """Of the search that others join."""
    words = f"--run {run} --trials {TRIALS} --steps 6 --workers 1 --time-limit 2h --storage {postgres.url()}".split()
    return inputs.arguments(*words, *more)


def join(postgres: PostgresServer, name: str) -> list[str]:
    """Of a search that joins; the time limit is for machines that have other things to do."""
    return ["--storage", postgres.url(), "--join", name, "--workers", "1", "--time-limit", "2h"]


def check_is_complete(postgres: PostgresServer, name: str) -> None:
    """As many were trained as an undisturbed search trains, none twice; nothing runs, and the best is feasible."""
    with closing(StudyServer(postgres.url())) as server:
        study = load_shared_study(server, name)
        states = Counter(trial.state for trial in study.get_trials())
        found = read_outcomes(study)
    assert states[optuna.trial.TrialState.RUNNING] == 0
    trained = [outcome.config.digest() for outcome in found if outcome.status in TRAINED]
    assert len(trained) == TRIALS
    assert max(Counter(trained).values()) == 1
    assert best_outcomes(found)[0].latency.ms_per_frame <= BUDGET_MS


def test_a_search_is_joined_and_its_server_stops_and_starts(
    shells: list[Shell], inputs: Inputs, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = shells
    with first.start("-m", "nas.search", *arguments(inputs, postgres, "R")) as starter:
        wait_for_file(first.folder, "R/trials/*/config.json")
        with second.start("-m", "nas.search", *join(postgres, "R")) as joiner:
            wait_for_file(second.folder, "runs/R/trials/*/config.json")
            postgres.stop()
            time.sleep(1)
            postgres.start()
            outputs = [process.communicate(timeout=3 * TIMEOUT) for process in (starter, joiner)]
    assert [(process.returncode, error) for process, (_, error) in zip((starter, joiner), outputs, strict=True)] == [
        (0, ""),
        (0, ""),
    ]
    assert all("s3cret" not in text for text, _ in outputs)
    for text, _ in outputs:
        assert f"{TRIALS} of {TRIALS} trained" in text
    for shell in (first, second):
        check_files_are_whole(shell.folder)
        assert "s3cret" not in next(shell.folder.rglob("config.json")).read_text()
    check_is_complete(postgres, "R")
    # From either folder models can be made, by whoever knows the password, which is kept nowhere.
    run = load_run(second.folder / "runs" / "R")
    assert "PGPASSWORD" in refusal(lambda: outcomes_of(run))
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    assert sum(outcome.status in TRAINED for outcome in outcomes_of(run)) == TRIALS


def test_the_trials_of_a_search_that_was_killed_are_tried_again(
    shells: list[Shell], inputs: Inputs, postgres: PostgresServer
) -> None:
    first, second, _ = shells
    with first.start(
        "-m", "nas.search", *arguments(inputs, postgres, "killed", "--steps", "9", "--grace", "4s")
    ) as starter:
        wait_for_file(first.folder, "killed/training/*.pt")
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    joined = second.fork("nas.search", *join(postgres, "killed"))
    assert (joined.status, joined.stderr) == (0, "")
    check_is_complete(postgres, "killed")
    with closing(StudyServer(postgres.url())) as server:
        trials = load_shared_study(server, "killed").get_trials()
    (cut_off,) = (trial for trial in trials if trial.state == optuna.trial.TrialState.FAIL)
    (again,) = (trial for trial in trials if trial.user_attrs.get("retry_of") == cut_off.number)
    assert again.user_attrs["attempt"] == 2 and again.params == cut_off.params and "status" in again.user_attrs


def test_what_differs_is_one_line(shells: list[Shell], inputs: Inputs, postgres: PostgresServer) -> None:
    first, second, third = shells
    done = first.fork("nas.search", *arguments(inputs, postgres, "one", "--trials", "1", "--steps", "1"))
    assert (done.status, done.stderr) == (0, "")
    (third.folder / "clips").mkdir()
    for number, path in enumerate(sorted(inputs.videos.iterdir())):
        (third.folder / "clips" / f"video{number + 1}.mp4").write_bytes(path.read_bytes())
    refused: list[tuple[Shell, list[str], str]] = [
        (second, ["--storage", postgres.url(), "--join", "two"], "holds no study 'two' (it holds: "),
        (second, ["--join", "one"], "--join needs --storage"),
        (second, [*join(postgres, "one"), "--steps", "3"], "--join takes --steps from the study"),
        (second, [*join(postgres, "one"), "--clips", "clips"], "clips"),
        (third, [*join(postgres, "one"), "--clips", "clips"], "was made with something else (clip"),
        (second, arguments(inputs, postgres, "one", "--trials", "1", "--steps", "2"), "--steps 1, not 2"),
        (first, inputs.arguments("--run", "one", "--trials", "1", "--steps", "1"), "not in its folder"),
    ]
    for shell, words, expected in refused:
        done = shell.fork("nas.search", *words)
        assert done.status == 2 and expected in done.error, done.error
        assert "s3cret" not in done.error
    assert list_files(second.folder / "trials") == {}
