"""`python -m nas.latency`: its commands, their options, and words that are not what they should be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nas.latency.__main__ import main, make_parser

OPTIONS = {
    "calibrate": ["--device", "--out", "--decoders", "--held-out", "--passes", "--gmacs", "--seed", "--plugin"],
    "serve": [
        "--device",
        "--bind",
        "--port",
        "--token-file",
        "--folder",
        "--largest-upload",
        "--time-limit",
        "--plugin",
    ],
    "measure": ["RUN", "--device", "--top", "--plugin"],
}
"""All there are."""


@pytest.mark.parametrize("command", OPTIONS)
def test_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args([command, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and f"python -m nas.latency {command}" in shown
    assert re.findall(r"^  (--[a-z-]+|[A-Z]+)\b", shown, re.MULTILINE) == OPTIONS[command]
    assert max(map(len, shown.splitlines())) <= 100


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from nas.latency.__main__ import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    modules = set(done.stdout.split())
    assert "nas.latency" in modules
    assert not {"torch", "numpy", "optuna", "rich", "coremltools", "starlette", "requests", "scipy"} & modules


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["calibrat"], "invalid choice: 'calibrat'"),
        (["measure", "R"], "the following arguments are required: --device"),
        (["serve", "--port", "x"], "argument --port"),
        (["calibrate", "--passes", "0"], "expected at least 1, got 0"),
    ],
)
def test_wrong_words(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert reason in error


def test_what_is_served_has_to_be_a_device_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device, reason in (("iphone-16-pro", "did you mean 'iphone'? known: coreml, host, iphone"), ("hst", "'host'")):
        assert main(["serve", "--device", device, "--folder", str(tmp_path / "a")]) == 2
        assert reason in capsys.readouterr().err
    assert main(["serve", "--token-file", str(tmp_path / "none")]) == 2
    assert "cannot read the token in" in capsys.readouterr().err
