"""Arguments at random: always one line and status 2, whatever is typed. Seeded and bounded."""

import contextlib
import importlib
import io
import random
from pathlib import Path

import pytest

from nas.terminal.parser import Parser, positive_int, seed_number

VALUES = (
    *("", " ", "-1", "0", "1.5", "1e9", "nan", "inf", "-inf", "9" * 400, "9" * 5000, str(2**31), str(2**63), "0x10"),
    *(
        "\u0663",
        "1_000",
        "x",
        "'",
        '"',
        "\\",
        "%s",
        "{0}",
        "[red]",
        "*",
        "?",
        "#",
        "/",
        "..",
        "~",
        "a" * 300,
        "a/" * 2500,
    ),
    *(
        "\udcff",
        "\u200b",
        "\n",
        "\x1b[2J",
        "64x",
        "x64",
        "64x64x64",
        "999999999x999999999",
        "64X64",
        "30MS",
        "1e-320ms",
    ),
    *(
        "1e308s",
        "0.0000001fps",
        "nothing.json",
        "--seed",
        "-h x",
    ),
)
"""What people, scripts and pasted text put where something else is expected."""

COMMANDS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "nas.search": (
        ["--latency-budget", "30ms", "--teacher-weights", "nowhere"],
        (
            *(
                "--latency-budget",
                "--teacher",
                "--clips",
                "--device",
                "--resolution",
                "--frames",
                "--space",
                "--trials",
            ),
            *("--steps", "--time-limit", "--seed", "--run"),
        ),
    ),
    "nas.decode": (["nowhere", "z.npy", "-o", "out.mp4"], ("--fps", "--device", "--teacher-weights")),
    "nas.finalize.__main__": (["nowhere"], ("--top", "--steps", "--clips", "--out")),
}
"""Module -> arguments with which it ends before it works, and options whose values are drawn."""


@pytest.mark.parametrize("module", COMMANDS)
def test_any_arguments_are_refused_in_one_line(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    main = importlib.import_module(module).main
    fixed, options = COMMANDS[module]
    source = random.Random(module)
    for _ in range(250):
        drawn = [f"{option}={source.choice(VALUES)}" for option in source.sample(options, source.choice((1, 1, 2, 3)))]
        # Standard error as the interpreter makes it: what cannot be encoded is escaped.
        shown = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
        with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
            try:
                status = main([*fixed, *drawn])
            except SystemExit as ended:
                status = ended.code
        assert isinstance(shown.buffer, io.BytesIO)
        text = shown.buffer.getvalue().decode()
        assert status == 2, drawn
        assert text.startswith("error: ") and text.count("\n") == 1, (drawn, text)
        assert not list(tmp_path.iterdir()), drawn


@pytest.mark.parametrize("text", ["-1", str(2**32), "9" * 5000, "1.5", "nan", "", "0x10"])
def test_a_seed_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser("nas.search", "")
    parser.add_argument("--seed", type=seed_number)
    parser.add_argument("--steps", type=positive_int)
    for option in ("--seed", "--steps"):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([f"{option}={text}"])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1 and option in error and len(error) < 300
    assert parser.parse_args(["--seed", str(2**32 - 1)]).seed == 2**32 - 1
