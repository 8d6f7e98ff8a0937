"""Docstrings of fields are sentences that stand alone, for whoever hovers over a field."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("blocks", "search_spaces", "nas")
CONTINUES = ("Of", "For", "Like", "Likewise", "In", "To", "From", "As", "By", "On", "With", "If")
"""Words that begin the rest of a sentence whose beginning is the field's name."""

DOCUMENTED_BY_PROTOCOL = {"HostDevice", "PredictedDevice", "CoreMLDevice", "AgentDevice"}
"""Implementations of `LatencyDevice`, which says what their fields are."""


def classes(layer: str) -> Iterator[tuple[Path, ast.ClassDef]]:
    for file in sorted((ROOT / layer).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                yield file.relative_to(ROOT), node


def fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Names and docstrings of annotated fields; class variables are left out."""
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = str(after.value.value)
            yield ast.unparse(statement.target), text


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_field_of_a_dataclass_is_explained(layer: str) -> None:
    found = [
        f"{file}: {node.name}.{name}"
        for file, node in classes(layer)
        if is_dataclass(node) and node.name not in DOCUMENTED_BY_PROTOCOL
        for name, text in fields(node)
        if not text
    ]
    assert not found


@pytest.mark.parametrize("layer", LAYERS)
def test_no_explanation_needs_the_fields_name_to_be_read(layer: str) -> None:
    found = [
        f"{file}: {node.name}.{name}: {text}"
        for file, node in classes(layer)
        for name, text in fields(node)
        if text and text.split()[0] in CONTINUES
    ]
    assert not found
