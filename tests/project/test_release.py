"""What is released: one version, extras that hold what is imported, and what loading a model needs."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import nas
from nas.machine import versions as recorded
from nas.terminal.extras import EXTRA_OF, missing_extra
from nas.terminal.parser import run_command

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LAYERS = ("blocks", "search_spaces", "nas")


def plain(name: str) -> str:
    """A distribution's name as it is imported: none of ours is imported under another one."""
    return name.lower().replace("-", "_")


def declared(lines: list[str]) -> set[str]:
    """Import names of the packages that these requirements install, those of our own extras included."""
    names: set[str] = set()
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            names |= set().union(*(declared(EXTRAS[extra]) for extra in requirement.extras))
        else:
            names.add(plain(requirement.name))
    return names


BASE = declared(PROJECT["dependencies"])


def imports(tree: ast.AST, *, when_imported: bool) -> Iterator[str]:
    """Full names of modules that a module imports.

    Args:
        tree: the module.
        when_imported: only those that importing it imports: not in functions, not for types alone.
    """
    for node in ast.iter_child_nodes(tree):
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if when_imported and (late or types):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node, when_imported=when_imported)


def file_of(module: str) -> Path | None:
    """Our file that a module is; None if it is no module of ours."""
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def foreign(names: set[str]) -> set[str]:
    """Top-level names that are neither ours nor Python's."""
    return {name.split(".")[0] for name in names} - set(LAYERS) - sys.stdlib_module_names


def reached(module: str) -> set[str]:
    """Everything that importing one of our modules imports, with the parts that are found by being in a folder."""
    found: set[str] = set()
    waiting = [module, *(f"{layer}.{file.stem}" for layer in LAYERS[:2] for file in (ROOT / layer).glob("*.py"))]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        if file := file_of(name):
            waiting += imports(ast.parse(file.read_text()), when_imported=True)
    return found


def test_there_is_one_version() -> None:
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", nas.__version__)
    assert f"\nversion: {nas.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{nas.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_types_and_licence_are_shipped() -> None:
    assert all((ROOT / layer / "py.typed").is_file() for layer in LAYERS)
    assert "Apache License" in (ROOT / "LICENSE").read_text() and PROJECT["license"] == "Apache-2.0"


def test_every_import_is_declared_and_everything_declared_is_imported() -> None:
    names: set[str] = set()
    for layer in LAYERS:
        for file in (ROOT / layer).rglob("*.py"):
            names |= set(imports(ast.parse(file.read_text()), when_imported=False))
    optional = foreign(names) - BASE
    assert optional == set(EXTRA_OF)
    assert declared([line for extra in EXTRAS if extra != "dev" for line in EXTRAS[extra]]) == optional


def test_a_missing_package_is_in_the_extra_that_is_named() -> None:
    for name, extra in EXTRA_OF.items():
        assert name in declared(EXTRAS[extra]), name


def test_loading_a_model_needs_the_base_alone() -> None:
    names = reached("nas.model")
    assert {"nas.model.turbo_vaed", "nas.machine.hub", "blocks.haar_head", "diffusers"} <= names
    assert foreign(names) <= BASE
    # Asked for in functions that loading calls.
    assert "huggingface_hub" in BASE


def test_development_installs_everything() -> None:
    assert declared(EXTRAS["dev"]) >= set(EXTRA_OF) | {"pytest", "ruff", "mypy"}


def test_the_lowest_versions_are_the_tested_ones() -> None:
    lines = (ROOT / "constraints-minimum.txt").read_text().splitlines()
    tested = {
        plain(name): version for name, version in (line.split("==") for line in lines if not line.startswith("#"))
    }
    promised: dict[str, str] = {}
    for line in (*PROJECT["dependencies"], *(line for extra in EXTRAS for line in EXTRAS[extra])):
        requirement = Requirement(line)
        if requirement.name not in (PROJECT["name"], "mypy", "ruff"):
            (specifier,) = requirement.specifier
            assert specifier.operator == ">="
            assert promised.setdefault(plain(requirement.name), specifier.version) == specifier.version
    assert [name for name, version in promised.items() if Version(version) != Version(tested[name])] == []


def fails(error: Exception) -> int:
    def run() -> None:
        raise error

    return run_command(run, continue_with="")


def test_a_missing_extra_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(ModuleNotFoundError("No module named 'optuna'", name="optuna")) == 2
    expected = "error: this needs optuna, which is not installed: pip install 'turbo-vaed-nas[search]'\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize("name", ["optuna.missing", "einops", "nas.missing", None])
def test_another_missing_module_is_no_missing_extra(name: str | None) -> None:
    error = ModuleNotFoundError("No module", name=name)
    assert missing_extra(error) is None
    with pytest.raises(ModuleNotFoundError):
        fails(error)


def test_versions_are_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_PACKAGES", ("torch", "no-such-package"))
    found = recorded.versions()
    assert list(found) == ["python", "system", "torch", "turbo-vaed-nas"]
    assert found["turbo-vaed-nas"] == nas.__version__
