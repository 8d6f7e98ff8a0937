"""Imports point one way: between the three layers, and between the rooms of `nas`. Files and functions stay small."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces import PRESETS, adapt

ROOT = Path(__file__).parents[2]
LAYERS = ("blocks", "search_spaces", "nas")
NEEDED = {"blocks": {"torch", "einops"}, "search_spaces": {"torch"}}
"""Installed packages that a layer may import, beside the layers below it."""

ARROWS: dict[str, set[str]] = {
    "terminal": set(),
    "machine": {"terminal"},
    "metrics": {"machine", "terminal"},
    "core_ml": {"machine", "terminal"},
    "latency": {"core_ml", "machine", "terminal"},
    "export": {"core_ml", "latency", "machine", "terminal"},
    "teachers": {"machine", "terminal"},
    "testing": {"core_ml", "latency", "teachers", "terminal"},
    "data": {"machine", "teachers", "terminal"},
    "distillation": {"data", "machine", "metrics", "teachers", "terminal"},
    "evaluation": {"data", "latency", "machine", "metrics", "terminal"},
    "model": {"evaluation", "latency", "machine", "terminal"},
    "evaluate": {"data", "evaluation", "machine", "metrics", "model", "teachers", "terminal"},
    "workers": {"data", "distillation", "machine", "terminal"},
    "proposals": {"core_ml", "latency", "terminal"},
    "study": {"data", "distillation", "export", "latency", "machine", "proposals", "terminal", "workers"},
    "finalize": {"data", "distillation", "evaluation", "export", "latency", "machine", "model", "study", "teachers"}
    | {"terminal"},
    "benchmark": {
        "data",
        "distillation",
        "latency",
        "machine",
        "proposals",
        "study",
        "teachers",
        "terminal",
        "workers",
    },
    "report": {"evaluation", "latency", "machine", "model", "study", "terminal"},
    "assets": set(),
}
"""Room of `nas` -> the rooms that it may import. The order is from the bottom up, so no folder grows back into another.

Commands (`nas/*.py` and every `__main__.py`) may import any room, and nothing imports a command.
"""

LONGEST_FILE, LONGEST_FUNCTION = 300, 60
"""Lines."""

HEAVY = ("optuna", "diffusers", "coremltools", "lpips", "av", "torchvision", "fvcore", "rich", "nas")
"""What loading an exported decoder must do without."""


def imported(source: str) -> set[str]:
    """Top-level names of everything that a module imports, wherever in the file; "." for a relative import."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module).split(".")[0])
    return names


def files(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer: str) -> None:
    above = {*LAYERS[LAYERS.index(layer) + 1 :], "scripts", "tests", "."}
    assert files(layer)
    wrong = {
        str(file.relative_to(ROOT)): found for file in files(layer) if (found := imported(file.read_text()) & above)
    }
    assert not wrong


@pytest.mark.parametrize("layer", NEEDED)
def test_lower_layers_need_torch_and_little_else(layer: str) -> None:
    allowed = NEEDED[layer] | set(LAYERS[: LAYERS.index(layer) + 1]) | sys.stdlib_module_names
    wrong = {
        str(file.relative_to(ROOT)): found for file in files(layer) if (found := imported(file.read_text()) - allowed)
    }
    assert not wrong


def test_every_way_to_import_is_seen() -> None:
    source = """
import a.b, c as d
from e.f import g
from . import h
def later() -> None:
    import i
if False:
    from j import *
"""
    assert imported(source) == {"a", "c", "e", ".", "i", "j"}


def room_of(file: Path) -> str:
    """The folder of `nas` that a file is in; "" for a command."""
    parts = file.relative_to(ROOT / "nas").parts
    return "" if len(parts) == 1 or parts[-1] == "__main__.py" else parts[0]


def imported_rooms(source: str) -> set[str]:
    """Folders of `nas`, and modules directly in it, that a module imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("nas.")}


def test_every_room_of_nas_is_in_the_table() -> None:
    folders = {path.parent.name for path in (ROOT / "nas").glob("*/__init__.py")}
    assert folders == set(ARROWS)


def test_the_table_goes_one_way() -> None:
    for index, (room, below) in enumerate(ARROWS.items()):
        assert below <= set(list(ARROWS)[:index]), room


def test_rooms_import_what_the_table_allows() -> None:
    wrong = {
        str(file.relative_to(ROOT)): found
        for file in files("nas")
        if (room := room_of(file)) and (found := imported_rooms(file.read_text()) - ARROWS[room] - {room})
    }
    assert not wrong


def test_nothing_imports_a_command() -> None:
    commands = {path.stem for path in (ROOT / "nas").glob("*.py")} - {"__init__", "__main__"}
    assert commands
    for file in files("nas"):
        if room_of(file):
            source = file.read_text()
            assert not imported_rooms(source) & commands, file
            assert "__main__ import" not in source, file


def test_an_arrow_is_seen_however_it_is_written() -> None:
    source = """
import nas.study.run
from nas import model as m
def later() -> None:
    from nas.teachers.wan import WanTeacher
"""
    assert imported_rooms(source) == {"study", "model", "teachers"}


def test_files_and_functions_are_short() -> None:
    long: list[str] = []
    for layer in LAYERS:
        for file in files(layer):
            source = file.read_text()
            if (lines := source.count("\n")) > LONGEST_FILE:
                long.append(f"{file.relative_to(ROOT)}: {lines} lines")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno is not None
                    if (lines := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION:
                        long.append(f"{file.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long


def run_python(code: str, folder: Path) -> str:
    """What `code` prints in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_importing_the_lower_layers_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys
import blocks, search_spaces
print(blocks.__file__)
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    file, loaded = run_python(code, tmp_path).split("\n")[:2]
    assert Path(file).is_relative_to(ROOT)
    assert loaded == ""


def test_a_saved_decoder_loads_with_the_lower_layers_alone(tmp_path: Path) -> None:
    preset = PRESETS["turbo_vaed_cog"]
    config = adapt(preset, preset.latents, 16)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    code = f"""
import json, sys
for name in {HEAVY}:
    sys.modules[name] = None  # importing it raises ImportError
import torch
from search_spaces import Decoder, DecoderConfig
decoder = Decoder(DecoderConfig.from_dict(json.load(open("config.json"))))
with torch.no_grad():
    print(decoder.config.digest(), *decoder(torch.zeros(1, 16, 2, 2, 2)).shape)
"""
    assert run_python(code, tmp_path).split() == [config.digest(), "1", "3", "5", "16", "16"]
