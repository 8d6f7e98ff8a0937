"""One place chooses the device, and the commands hand it to the teacher, the recipe and everybody else."""

import ast
from pathlib import Path

import pytest
import torch

from nas.finalize.__main__ import main as finalize
from nas.search import main as search
from nas.study.contents import contents_of_space
from nas.study.run import open_run
from nas.study.settings import RunSettings
from nas.terminal.errors import UserError

ROOT = Path(__file__).parents[2]
CHOSEN = torch.device("cuda", 3)
"""A device that is not there: it is only handed on."""


class HandedError(UserError):
    """Ends a command where the teacher would have been opened."""


@pytest.fixture(autouse=True)
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What teachers are opened with, in an empty folder."""
    found: list[object] = []

    def load_teacher(name: str, weights: Path | None = None, device: object = "cpu") -> None:
        found.append(device)
        raise HandedError(f"{name} was opened")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nas.machine.device.choose_device", lambda: CHOSEN)
    monkeypatch.setattr("nas.teachers.load_teacher", load_teacher)
    return found


def test_a_search_opens_its_teacher_on_the_chosen_device(handed: list[object]) -> None:
    assert search(["--latency-budget", "30ms"]) == 2
    assert handed == [CHOSEN]


def test_finalize_opens_its_teacher_on_the_chosen_device(handed: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RunSettings("wan-tiny", None, None, "30ms", "iphone-16-pro", 64, 64, 5, "hybrid", 3, 0)
    open_run(settings, Path("R"), contents_of_space("hybrid"))
    monkeypatch.setattr("nas.finalize.__main__._leaders", lambda console, run, noise: [])
    assert finalize(["R"]) == 2
    assert handed == [CHOSEN]


def test_nobody_else_asks_which_devices_there_are() -> None:
    asking = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "nas").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "is_available"
    ]
    assert set(asking) == {"nas/machine/device.py"}
