"""The README's commands, snippets and file names are real."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from blocks import get_block
from blocks.registry import _REGISTRY
from nas.testing.block_contract import CHECKS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
LINES = [line.split("#")[0].strip() for language, text in FENCES if language == "" for line in text.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python -m ")]


def python_snippet(containing: str) -> str:
    (snippet,) = [text for language, text in FENCES if language == "python" and containing in text]
    return str(snippet)


def test_it_opens_with_the_three_commands() -> None:
    first = FENCES[0][1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make search", "make finalize", "make test"]
    assert README.index("make search") < README.index("\n## ")
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w[\w-]*)`", README):
        assert f"\n{target}:" in makefile, target


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command: str) -> None:
    words = shlex.split(command)[2:]
    module = importlib.import_module(words[0])
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{words[0]}.__main__")
    assert isinstance(module.make_parser().parse_args(words[1:]), argparse.Namespace)


def test_the_block_that_it_adds_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dilated_conv2d.py").write_text(python_snippet("dilated_conv2d"))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("dilated_conv2d")
    try:
        for config in get_block("dilated_conv2d").Config.all_configs():
            for check in CHECKS.values():
                check(config)
    finally:
        del _REGISTRY["dilated_conv2d"]


def test_files_that_it_names_exist() -> None:
    named = set(re.findall(r"`((?:nas|blocks|search_spaces|tests|\.ci)/[\w./]*)`", README))
    assert named >= {"nas/distillation/recipes.py", "tests/support/block_contract.py", ".ci/run"}
    assert [path for path in named if not (ROOT / path).exists()] == []
