"""Imports point one way, blocks <- search_spaces <- nas, and the two lower layers need next to nothing."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces import PRESETS, adapt

ROOT = Path(__file__).parents[1]
LAYERS = ("blocks", "search_spaces", "nas")
NEEDED = {"blocks": {"torch", "einops"}, "search_spaces": {"torch"}}
"""Installed packages that a layer may import, beside the layers below it."""

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
    above = {*LAYERS[LAYERS.index(layer) + 1 :], "tests", "block_contract", "block_parts", "."}
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
