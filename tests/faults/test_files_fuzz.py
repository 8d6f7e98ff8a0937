"""Damage at random to what this program wrote beside its runs and reads back: one line, and the file stays as it is."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.benchmark.table import Curve, CurveTable, DecoderRow, read_curve
from nas.core_ml.part_reports import _read as read_report
from nas.core_ml.steps import Step
from nas.machine.files import write_json
from nas.model.folder import read_record
from tests.faults.test_run_fuzz import check
from tests.support.damage import damaged_bytes, damaged_json
from tests.support.records import make_record

STEP = Step("conv", inputs=(("x", (1, 8, 2, 2)),), results=((1, 8, 2, 2),), reads=(0,), writes=(1,))
CURVE = Curve("0123", 0, 50, ((0, 10.0), (50, 20.5)), 20.25, 1.5)
ROW = DecoderRow("a decoder", "0123", "dw3d", 0, 1.5, 1000, 0.5, False, {})


def write_record(path: Path) -> None:
    write_json(path, make_record().to_dict())


def write_report(path: Path) -> None:
    write_json(path, {"sizes": [1, 8, 2], "report": {"problem": "", "steps": [STEP.__dict__]}})


def write_table(path: Path) -> None:
    made = "command", "machine", "2026-01-01"
    CurveTable(*made, {}, "teacher", "key", {"steps": 50}, ((1.0, 2.0),), (ROW,), (CURVE,)).save(path)


def write_curve(path: Path) -> None:
    write_json(path, CURVE.__dict__)


FILES: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], object]]] = {
    "a model's record": ("evaluation.json", write_record, lambda path: read_record(path.parent)),
    "a part's report": ("part.json", write_report, read_report),
    "a benchmark's table": ("curves.json", write_table, CurveTable.load),
    "a benchmark's curve": ("curve.json", write_curve, read_curve),
}
"""What is read back -> name of its file, how it is written, how it is read."""


@pytest.mark.parametrize("kind", FILES)
def test_damage_anywhere_is_one_line(kind: str, tmp_path: Path) -> None:
    name, write, read = FILES[kind]
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    assert read(path) and check(path, lambda: read(path)) == 0
    path.write_bytes(b"\xef\xbb\xbf" + whole)
    assert check(path, lambda: read(path)) == 0, "a byte-order mark, as editors leave it"
    data, source, refused = json.loads(whole), random.Random(kind), 0
    for _ in range(120):
        path.write_bytes(source.choice((damaged_bytes, damaged_json))(data, source))
        refused += check(path, lambda: read(path))
    assert refused > 40
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=name):
        read(path)
