"""`turbo-vaed` and `python -m nas`: the list of commands, and a command in the same process."""

import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.__main__ import find_commands, main
from nas.terminal.parser import command_words
from tests.support.commands import Shell

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "numpy", "optuna", "diffusers", "rich", "av", "coremltools"}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_commands_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", out, flags=re.MULTILINE))
    assert set(listed) >= {"search", "finalize", "export", "latency", "teachers", "blocks"} and err == ""
    assert listed["search"] == "Search small decoders for a video VAE's latents under a latency budget"
    assert all(len(line) <= 120 for line in out.splitlines())


def test_what_can_be_run_is_what_is_listed() -> None:
    folder = ROOT / "nas"
    files = {file.stem for file in folder.glob("*.py")} - {"__init__", "__main__"}
    assert set(find_commands()) == files | {file.parent.name for file in folder.glob("*/__main__.py")}
    for module, _ in find_commands().values():
        assert callable(importlib.import_module(module).main), module


def test_the_list_is_quick_and_imports_no_command(shell: Shell) -> None:
    started = time.monotonic()
    done = shell.run("nas")
    assert time.monotonic() - started < 1 and (done.status, done.stderr) == (0, "")
    code = "import sys; from nas.__main__ import main; main([]); print(*sys.modules, file=sys.stderr)"
    with shell.start("-c", code) as process:
        modules = set(process.communicate()[1].split())
    assert not modules & (HEAVY | {module for module, _ in find_commands().values()})


def test_an_unknown_command_is_one_line(shell: Shell) -> None:
    done = shell.run("nas", "serach", "--latency-budget", "30ms")
    assert done.status == 2 and done.stdout == ""
    assert done.error.startswith("error: unknown command 'serach': did you mean 'search'? known: ")


def test_a_command_runs_as_it_does_by_itself(shell: Shell) -> None:
    done = shell.fork("nas", "search", "--latency-budget", "30")
    alone = shell.fork("nas.search", "--latency-budget", "30")
    assert (done.status, done.error) == (alone.status, alone.error) and done.status == 2
    done = shell.run("nas", "search")
    assert done.error.endswith("(see python -m nas search --help)")


def test_the_installed_command_names_itself(tmp_path: Path) -> None:
    script = tmp_path / "turbo-vaed"
    script.write_text("import sys\nfrom nas.__main__ import main\nsys.exit(main())\n")

    def run(*arguments: str) -> str:
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}).stdout

    assert run().startswith("usage: turbo-vaed COMMAND ...")
    assert run("latency", "measure", "--help").startswith("usage: turbo-vaed latency measure ")


@pytest.mark.parametrize(
    ("started", "words"),
    [
        ("/venv/bin/turbo-vaed", "turbo-vaed search"),
        ("/lib/nas/__main__.py", "python -m nas search"),
        ("/lib/nas/search.py", "python -m nas.search"),
        ("/lib/nas/finalize/__main__.py", "python -m nas.search"),
        ("-c", "python -m nas.search"),
    ],
)
def test_a_command_is_named_as_it_was_started(monkeypatch: pytest.MonkeyPatch, started: str, words: str) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert " ".join(command_words("nas.search")) == words
