"""The commands as a user meets them: help, options, and words that are not what they should be."""

import re
import shutil
import time
from pathlib import Path

import pytest

from nas.latency.devices import list_devices
from nas.teachers import list_teachers
from search_spaces import SEARCH_SPACES
from tests.support.commands import Finished, Inputs, Shell, refuse
from tests.support.run_folders import open_study, read_trials

OPTIONS = {
    "nas.search": {
        "options": ["--plugin"],
        "what is distilled": ["--teacher", "--teacher-weights", "--clips"],
        "what it may cost": [
            *("--latency-budget", "--device", "--max-params", "--max-memory", "--max-size"),
            *("--resolution", "--frames"),
        ],
        "how it is searched": [
            *("--space", "--trials", "--proposer", "--steps", "--time-limit", "--seed", "--run"),
            *("--from-run", "--status"),
        ],
        "several processes and machines": ["--workers", "--ray", "--storage", "--join", "--grace"],
    },
    "nas.finalize": {
        "positional arguments": ["RUN"],
        "options": [
            "--top",
            "--front",
            "--noise",
            "--steps",
            "--recipe",
            "--clips",
            "--latents",
            "--cache-size",
            "--out",
            "--plugin",
        ],
    },
    "nas.evaluate": {
        "positional arguments": ["MODEL"],
        "options": [
            *("--clips", "--latents", "--normalised", "--protocol", "--frames", "--crop", "--noise"),
            *("--i3d", "--teacher-weights", "--out", "--plugin"),
        ],
    },
    "nas.export": {
        "positional arguments": ["MODEL"],
        "options": [
            *("--resolution", "--frames", "--streaming", "--precision", "--weights", "--rewrite"),
            *("--least-psnr", "--latents", "--out", "--plugin"),
        ],
    },
}
"""All there are. A new one costs every reader of the help a line: add it here when it is worth that."""


# Help


@pytest.mark.parametrize("module", OPTIONS)
def test_help_shows_the_options_in_groups(shell: Shell, module: str) -> None:
    done = shell.run(module, "--help")
    assert (done.status, done.stderr) == (0, "")
    groups: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if re.fullmatch(r"[a-z ]+:", line):
            group = groups.setdefault(line[:-1], [])
        elif option := re.match(r"  (--[a-z0-9-]+|[A-Z]+)\b", line):
            group.append(option[1])
    assert {name: options for name, options in groups.items() if options} == OPTIONS[module]
    assert sum(map(len, groups.values())) <= 25
    assert f"python -m {module}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.timing
@pytest.mark.parametrize("module", OPTIONS)
def test_help_is_quick(shell: Shell, module: str) -> None:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        shell.run(module, "--help")
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 2


@pytest.mark.parametrize("module", OPTIONS)
def test_help_imports_nothing_heavy(shell: Shell, module: str) -> None:
    entry = f"{module}.__main__" if module in ("nas.evaluate", "nas.export", "nas.finalize") else module
    code = f"import sys; from {entry} import main\ntry: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    with shell.start("-c", code) as process:
        _, modules = process.communicate()
    assert module in modules.split()
    heavy = {"torch", "numpy", "optuna", "diffusers", "rich", "av", "coremltools", "plotly"}
    assert not heavy & set(modules.split())


# Words that are not what they should be

NAMES = {
    "teacher": ("--teacher", "wan-tny", "wan-tiny", list_teachers()),
    "space": ("--space", "hybird", "hybrid", list(SEARCH_SPACES)),
    "device": ("--device", "iphone-16", "iphone-16-pro", list_devices()),
}


@pytest.mark.parametrize("row", NAMES)
def test_unknown_name_gives_the_nearest_and_the_list(shell: Shell, inputs: Inputs, row: str) -> None:
    option, name, near, known = NAMES[row]
    done = refuse(shell, "nas.search", inputs.arguments(option, name), f"'{name}'", f"did you mean '{near}'?", *known)
    assert row in done.error
    done = refuse(shell, "nas.search", inputs.arguments(option, "0000"), "'0000'", *known)
    assert "did you mean" not in done.error


def test_unknown_teacher_in_a_real_process(shell: Shell) -> None:
    refuse(shell, "nas.search", ["--teacher", "wan-tny", "--latency-budget", "30ms"], "'wan-tiny'", real=True)


@pytest.mark.parametrize(
    "text", ["30", "0ms", "-5ms", "abc", "", "30 m", "nanms", "infms", "1e999ms", "30ms per frame"]
)
def test_budget_that_is_none(shell: Shell, inputs: Inputs, text: str) -> None:
    refuse(shell, "nas.search", inputs.arguments(f"--latency-budget={text}"), f"'{text}'", "30ms")


def test_negative_budget_after_a_space(shell: Shell) -> None:
    """argparse takes "-5ms" for an option."""
    refuse(shell, "nas.search", ["--latency-budget", "-5ms"], "-5ms", "30ms")


WORDS: dict[str, tuple[list[str], list[str]]] = {
    "one number": (["--resolution", "512"], ["'512'", "512x512"]),
    "zero height": (["--resolution", "0x64"], ["'0x64'", "512x512"]),
    "negative width": (["--resolution", "64x-64"], ["'64x-64'", "512x512"]),
    "height off the grid": (["--resolution", "60x64"], ["--resolution", "60", "56 and 64"]),
    "width off the grid": (["--resolution", "64x100"], ["--resolution", "100", "96 and 104"]),
    "frames off the grid": (["--frames", "6"], ["--frames", "6", "5 and 9"]),
    "no frames": (["--frames", "0"], ["--frames", "0", "at least 1"]),
    "half a frame": (["--frames", "1.5"], ["--frames", "1.5", "whole number"]),
    "no trials": (["--trials", "0"], ["--trials", "0", "at least 1"]),
    "negative trials": (["--trials=-3"], ["--trials", "-3", "at least 1"]),
    "steps in letters": (["--steps", "x"], ["--steps", "'x'", "whole number"]),
    "seed in letters": (["--seed", "x"], ["--seed", "'x'"]),
    "time without unit": (["--time-limit", "10"], ["'10'", "30m"]),
    "no time": (["--time-limit", "0s"], ["'0s'", "30m"]),
    "time in letters": (["--time-limit", "soon"], ["'soon'", "30m"]),
    "unknown option": (["--tirals", "3"], ["--tirals", "--help"]),
    "shortened option": (["--trial", "3"], ["--trial", "--help"]),
    "stray word": (["now"], ["now", "--help"]),
    "option without its value": (["--run"], ["--run", "--help"]),
}


@pytest.mark.parametrize("row", WORDS)
def test_wrong_value_of_an_option(shell: Shell, inputs: Inputs, row: str) -> None:
    arguments, expected = WORDS[row]
    refuse(shell, "nas.search", inputs.arguments(*arguments), *expected)


def test_no_budget(shell: Shell) -> None:
    refuse(shell, "nas.search", ["--teacher", "wan-tiny"], "--latency-budget", "--help")


# Finalize


def test_finalize_without_a_run(shell: Shell) -> None:
    refuse(shell, "nas.finalize", [], "no run found", "runs", "python -m nas.search", real=True)
    refuse(shell, "nas.finalize", ["nowhere"], "nowhere", "not a run folder", "python -m nas.search")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--top", "0"], ["--top", "at least 1"]),
        (["--top", "2", "--front"], ["--front", "not allowed with", "--top"]),
        (["--noise", "loud"], ["--noise", "a number of dB", "'loud'"]),
        (["--steps", "x"], ["--steps", "'x'", "whole number"]),
        (["--latency-budget", "30ms"], ["--latency-budget", "--help"]),
        (["R", "S"], ["S", "--help"]),
    ],
)
def test_finalize_with_wrong_words(shell: Shell, arguments: list[str], expected: list[str]) -> None:
    refuse(shell, "nas.finalize", arguments, *expected)


def test_finalize_with_missing_clips(shell: Shell, kept_run: Path) -> None:
    shutil.copytree(kept_run, shell.folder / "R")
    done = shell.fork("nas.finalize", "R", "--clips", "nowhere")
    assert done.status == 2
    assert "nowhere" in done.error and "does not exist" in done.error
    assert not (shell.folder / "R" / "models").exists()


def test_finalize_with_missing_latents(shell: Shell, kept_run: Path) -> None:
    shutil.copytree(kept_run, shell.folder / "R")
    done = shell.fork("nas.finalize", "R", "--latents", "nowhere")
    assert done.status == 2
    assert "nowhere does not exist: expected a file of latents" in done.error
    assert not (shell.folder / "R" / "models").exists()


def test_finalize_a_run_that_was_cut_off_before_its_study(shell: Shell, kept_run: Path) -> None:
    (shell.folder / "R").mkdir()
    shutil.copy(kept_run / "config.json", shell.folder / "R" / "config.json")
    done = shell.fork("nas.finalize", "R")
    assert done.status == 2
    assert "R/study.db holds no study yet" in done.error and "python -m nas.search" in done.error


# A budget that nothing can meet


def check_nothing_meets(done: Finished, folder: Path) -> None:
    assert done.status == 3
    assert "0.01 ms" in done.error and "fastest" in done.error
    fastest = re.search(r"([\d.]+) ms per frame at 512x512 x 17 frames, predicted for iphone-16-pro", done.error)
    finished = (trial for trial in read_trials(folder) if trial.state.is_finished())
    known = (trial.user_attrs.get("latency") for trial in finished)
    assert fastest is not None
    assert float(fastest[1]) == pytest.approx(min(each["ms_per_frame"] for each in known if each), abs=0.05)
    share = re.search(r"(\d+)% of it in (stem|stage\d|head)", done.error)
    assert share is not None and 20 <= int(share[1]) <= 100
    assert not (folder / "trials").exists(), "nothing was trained"


UNREACHABLE = ["--space", "turbo3d", "--latency-budget", "0.01ms", "--resolution", "512x512", "--frames", "17"]
UNREACHABLE += ["--run", "R"]


@pytest.mark.slow
def test_budget_that_nothing_can_meet(shell: Shell, inputs: Inputs) -> None:
    """The database is given the hundred proposals that the search would make before it gives up."""
    folder = shell.folder / "R"
    for _ in range(2):
        done = shell.fork("nas.search", *inputs.arguments(*UNREACHABLE, "--time-limit", "0.1s"))
        assert done.status == 3 and "--time-limit" in done.error
    proposal = next(trial for trial in read_trials(folder) if trial.state.is_finished())
    with open_study(folder) as study:
        study.add_trials([proposal] * 99)
    done = shell.fork("nas.search", *inputs.arguments(*UNREACHABLE))
    check_nothing_meets(done, folder)
    done = shell.fork("nas.finalize", "R")
    assert done.status == 3
    assert "no scored candidate" in done.error and "search" in done.error


@pytest.mark.slow
def test_budget_that_nothing_can_meet_from_the_start(shell: Shell, inputs: Inputs) -> None:
    check_nothing_meets(shell.fork("nas.search", *inputs.arguments(*UNREACHABLE)), shell.folder / "R")
