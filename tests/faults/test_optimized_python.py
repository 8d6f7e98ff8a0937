"""`python -O` leaves out asserts: none of them does anything, and the results are the same."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_EFFECT = {"isinstance", "len", "all", "any", "set", "sorted", "min", "max", "abs", "callable", "hasattr"}
"""Functions that an assert may call."""


def effects(source: str) -> list[str]:
    """What asserts of a module call or assign that might change something."""
    found = []
    for statement in ast.walk(ast.parse(source)):
        if not isinstance(statement, ast.Assert):
            continue
        for node in ast.walk(statement.test):
            allowed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WITHOUT_EFFECT
            changes = isinstance(node, ast.Call | ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom)
            if changes and not allowed:
                found.append(f"line {statement.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("layer", ["blocks", "search_spaces", "nas", "scripts"])
def test_no_assert_does_anything(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    assert not {str(file): found for file in files if (found := effects(file.read_text()))}


def test_an_assert_that_does_something_is_found() -> None:
    assert effects("assert rewrite(after) > 0") == ["line 1: rewrite(after)"]
    assert effects("assert (x := f)") == ["line 1: (x := f)"] and effects("assert items.pop()")
    assert not effects("assert isinstance(x, int) and len(x) > 0, describe(x)")


PROGRAM = """
import hashlib, torch
from nas.blocks import Size, compare_rewrites
from nas.distillation.distill import distill
from nas.distillation.settings import DistillSettings
from nas.export.functions import make_functions
from nas.export.settings import ExportSettings
from tests.support.exported_decoders import small_decoder
from tests.support.small_targets import build_student, make_targets
settings = DistillSettings(steps=3, batch_size=2, precision="float32")
trained = distill(build_student(), make_targets(), settings, device="cpu").decoder
functions, scaled = make_functions(small_decoder(), ExportSettings(16, 24, 1, rewrites=("joined",)), None)
for module in (trained, functions["main"].module):
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    print(digest.hexdigest())
print(scaled)

def counted(functions, reference, rounds):
    convolutions = []
    for function in functions:
        with torch.profiler.profile() as profile:
            function()
        convolutions.append(sum(event.count for event in profile.key_averages() if event.key.startswith("aten::")))
    return convolutions

from nas.testing.space_contract import Dice, Given
for chooser, offered in ((Dice(0), [1, 1]), (Dice(0), []), (Given({"width": 3}), [1, 2]), (Given({}), [1])):
    try:
        print("taken:", chooser.suggest_categorical("width", offered))
    except AssertionError as error:
        print(error)

import nas.blocks
nas.blocks._ratios = lambda functions, reference, rounds: counted(functions, reference, rounds)
print(*compare_rewrites(Size(16, 3, 8), 1), sep="\\n")
"""


def test_the_results_are_the_same_without_asserts() -> None:
    """Weights of a distillation, an exported decoder, and what the rewrites make of every part."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    plain, optimized = (
        subprocess.run(
            [sys.executable, *options, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        for options in ([], ["-O"])
    )
    assert plain.count("\n") > 12 and plain == optimized
    assert plain.count("width offers") == 2 and plain.count("but it offers") == 2, "contracts hold without asserts"


def test_no_contract_checks_by_assert() -> None:
    """What an assert says in words is for people who run a contract, with `-O` too."""
    for file in sorted((ROOT / "nas" / "testing").rglob("*.py")):
        asserts = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Assert)]
        assert not [node.lineno for node in asserts if node.msg is not None], file.name
