"""README and docs: short enough, commands and snippets that work, links and file names that are there."""

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from blocks import get_block
from blocks.registry import _REGISTRY
from nas.model import TurboVAED
from nas.testing.block_contract import CHECKS
from search_spaces import PRESETS, LatentSpec, adapt

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"))
}
FENCES = [
    (page, language, text)
    for page, content in sorted(PAGES.items())
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", content, flags=re.MULTILINE | re.DOTALL)
]
COMMANDS = sorted(
    {
        line.split(" #")[0].strip()
        for _, language, text in FENCES
        if language == ""
        for line in text.splitlines()
        if line.startswith("python ")
    }
)
SNIPPETS = {
    f"{page}-{number}": text
    for number, (page, language, text) in enumerate(FENCES)
    # A block is one file of several lines that does nothing; the page about teachers has a test of its own.
    if language == "python" and "@register_block" not in text and page != "docs/add_a_teacher.md"
}
LARGEST_README = 10_000
"""Bytes."""

WITH_A_MODEL = """
import torch
latents = torch.randn(1, 16, 3, 8, 8)
chunks = latents.split([1, 2], dim=2)
shown = []
show = shown.append
"""
"""What the README's reader has beside a finished model."""


def python_snippet(containing: str) -> str:
    (snippet,) = [text for page, language, text in FENCES if language == "python" and containing in text]
    return str(snippet)


def test_the_readme_is_one_page_that_opens_with_three_commands() -> None:
    assert len(README.encode()) <= LARGEST_README
    first = next(text for page, language, text in FENCES if page == "README.md")
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make search", "make finalize", "make test"]
    assert README.index("make search") < README.index("\n## ")


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page, content in PAGES.items():
        for target in re.findall(r"(?:`|^)make ([a-z][\w-]*)", content, flags=re.MULTILINE):
            assert f"\n{target}:" in makefile, (page, target)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file()
        return
    module = importlib.import_module(words[1])
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{words[1]}.__main__")
    assert isinstance(module.make_parser().parse_args(words[2:]), argparse.Namespace)


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = SNIPPETS[name]
    monkeypatch.chdir(tmp_path)
    # Temporary folders that a snippet makes, too.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for folder in re.findall(r'"(runs/[^"]+)"', code):
        wan = LatentSpec(channels=16, spatial=8, temporal=4)
        TurboVAED(adapt(PRESETS["taehv_wan"], wan, 16).to_dict(), "wan-tiny").save_pretrained(tmp_path / folder)
        code = WITH_A_MODEL + code
    exec(compile(code, name, "exec"), {"__name__": "snippet"})


def test_the_block_that_the_readme_adds_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody has added it."""
    kept = dict(_REGISTRY)
    _REGISTRY.pop("dilated_conv2d", None)
    (tmp_path / "dilated_conv2d.py").write_text(python_snippet("dilated_conv2d"))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("dilated_conv2d")
    try:
        for config in get_block("dilated_conv2d").Config.all_configs():
            for check in CHECKS.values():
                check(config)
    finally:
        _REGISTRY.clear()
        _REGISTRY.update(kept)


def test_the_teacher_that_the_page_adds_keeps_the_contract(tmp_path: Path) -> None:
    """As the page has it: a file, the contract on small weights, and the table of teachers."""
    (tmp_path / "my_teacher.py").write_text(python_snippet("class ImageTeacher"))
    (tmp_path / "check.py").write_text(python_snippet("check_teacher(load_teacher"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for words in (["check.py"], ["-m", "nas.teachers", "--plugin", "my_teacher"]):
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("image-kl ")]
    assert "--teacher-weights PATH" in row


def anchors(content: str) -> set[str]:
    """Those that a hub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", content, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL))
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        file = folder / path if path else ROOT / page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file.read_text()), link


def test_every_page_is_linked_from_the_readme() -> None:
    for page in PAGES:
        assert page == "README.md" or f"({page}" in README, page


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:nas|blocks|search_spaces|tests|scripts|docs|\.ci)/[\w./]*)`", PAGES[page])
    assert [path for path in named if not (ROOT / path).exists()] == []
