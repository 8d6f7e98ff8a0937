"""Arguments at random: always one line and status 2, whatever is typed. Seeded and bounded."""

import contextlib
import importlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import nas.search
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
    "nas.latency.__main__": (
        ["serve", "--folder", "/dev/null/folder"],
        ("--device", "--bind", "--port", "--token-file", "--largest-upload", "--time-limit"),
    ),
}
"""Module -> arguments with which it ends before it works, and options whose values are drawn."""

ADDRESSES = (
    ("http://", "http://", "https://", "postgresql://", "HTTP://", "http:", "http:/", "ftp://", "://", ""),
    ("", "", "", "user:secret@", "user@", "@", "%00@"),
    (
        *("127.0.0.1", "127.0.0.1", "localhost", "[::1]", "[::1", "::1", "127.0.0.1.1", "999.1.1.1", "127.1", "0x7f.1"),
        *(
            "",
            ".",
            "..",
            "-",
            "a b",
            "xn--",
            "\udcff",
            "\u200b",
            "\u0661",
            "a" * 64,
            "a." * 200,
            "%",
            "[red]",
            "\\",
            "\n",
        ),
    ),
    (":9", ":9", ":9", ":0", ":", ":-1", ":65536", ":http", ":9:9", ":\u0661", ":9e1", ":" + "9" * 400),
    (
        "",
        "",
        "/",
        "/device",
        "/../..",
        "?",
        "?token=secret",
        "#secret",
        "/%",
        "/\udcff",
        "/" + "a/" * 2500,
        " ",
        "\x1b[2J",
    ),
)
"""Scheme, user, host, port and rest; no host is beyond this machine, and nothing listens at the port."""


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
        refused(main, [*fixed, *drawn])
        assert not list(tmp_path.iterdir()), drawn


@pytest.mark.parametrize("option", ["--device", "--storage"])
def test_any_address_is_refused_in_one_line(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an agent and of a server: nobody answers at those that are addresses. Passwords are not repeated."""
    monkeypatch.chdir(tmp_path)
    source = random.Random(option)
    fixed = ["--latency-budget", "30ms", "--teacher-weights", "nowhere"]
    for _ in range(200):
        address = "".join(source.choice(part) for part in ADDRESSES)
        text = refused(nas.search.main, [*fixed, f"{option}={address}"])
        assert "secret" not in text or not ("://" in address or "@" in address), address
        assert not list(tmp_path.iterdir()), address


def refused(main: Callable[[list[str]], int], arguments: list[str]) -> str:
    """What a command shows that has to end with one line and status 2."""
    # Standard error as the interpreter makes it: what cannot be encoded is escaped.
    shown = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
        try:
            status: object = main(arguments)
        except SystemExit as ended:
            status = ended.code
    assert isinstance(shown.buffer, io.BytesIO)
    text = shown.buffer.getvalue().decode()
    assert status == 2, arguments
    assert text.startswith("error: ") and text.count("\n") == 1, (arguments, text)
    return text


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
