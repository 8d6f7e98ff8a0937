"""Distillations side by side: resumed where they were cut off, the same whoever made them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from nas.benchmark import curves
from nas.benchmark.__main__ import main
from nas.benchmark.curves import Job, list_jobs, run_job
from nas.benchmark.sample import Entry
from nas.benchmark.table import Curve, CurveTable, read_curve
from nas.data.settings import TargetSettings
from nas.distillation.distill import distill
from nas.distillation.settings import DistillSettings
from tests.support.small_targets import CONFIG, OTHER_CONFIG, build_student, make_targets

SETTINGS = DistillSettings(steps=6, batch_size=2, report_every=2, precision="float32")
CROPS = TargetSettings(32, 5, 1, 1, 1, ())


@pytest.fixture(autouse=True)
def formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of a teacher that is a formula."""
    monkeypatch.setattr(curves, "_targets", lambda job: make_targets())


def jobs(folder: Path, seeds: int = 1) -> list[Job]:
    sample = [Entry("one", CONFIG, 1.0), Entry("two", OTHER_CONFIG, 2.0)]
    return list_jobs(sample, SETTINGS, seeds, "formula", CROPS, folder)


def run(job: Job) -> Curve:
    run_job(job)
    return read_curve(job.file)


def test_a_curve_is_that_of_a_distillation_with_its_beginning(tmp_path: Path) -> None:
    curve = run(jobs(tmp_path)[0])
    wanted = distill(build_student(), make_targets(), SETTINGS, device="cpu")
    assert [step for step, _ in curve.points] == [0, 2, 4, 6]
    assert list(curve.points[1:]) == wanted.curve
    assert curve.final_db == wanted.score and curve.failure == ""
    assert curve.points[0][1] < curve.final_db and curve.test_db != curve.final_db


def test_every_third_decoder_has_more_seeds(tmp_path: Path) -> None:
    sample = [Entry(str(number), CONFIG, 1.0) for number in range(7)]
    listed = list_jobs(sample, SETTINGS, 3, "formula", CROPS, tmp_path)
    assert [job.settings.seed for job in listed] == [0] * 14 + [1] * 3 + [2] * 3
    assert [job.settings.steps for job in listed] == [6] * 7 + [1] * 7 + [6] * 6, "and each has a short run of its own"


def test_what_is_known_is_not_distilled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = jobs(tmp_path)
    for job in every:
        run_job(job)
    before = [job.file.stat().st_mtime_ns for job in every]
    monkeypatch.setattr(curves, "run_job", lambda job: pytest.fail("distilled again"))
    seen: list[tuple[int, int]] = []
    found = curves.run_jobs(every, 1, lambda *counts: seen.append(counts))
    assert [(curve.digest, curve.steps) for curve in found] == [
        (each.digest(), steps) for steps in (6, 1) for each in (CONFIG, OTHER_CONFIG)
    ]
    assert seen == [(4, 4)] and [job.file.stat().st_mtime_ns for job in every] == before


def test_a_decoder_that_diverges_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(frames: Tensor, *others: object) -> dict[str, Tensor]:
        return {"teacher": frames.mean() * float("nan")}

    monkeypatch.setattr("nas.distillation.preparation.frame_losses", broken)
    curve = run(jobs(tmp_path)[0])
    assert "nan" in curve.failure and len(curve.points) == 1


@pytest.mark.slow
def test_the_command_makes_a_table_and_ranks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    words = "curves --per-band 2 --steps 4 --seeds 2 --workers 2 --gmacs 2 --out table.json"
    assert main(words.split()) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert len(table["decoders"]) == 6 and len(table["curves"]) == 14
    assert table["command"].endswith(words) and table["versions"]["torch"]
    capsys.readouterr()
    assert main(["rank", "table.json"]) == 0
    out = capsys.readouterr().out
    assert "6 decoders, 14 curves of up to 4 steps" in out and "| the first 2 steps | 50% | 6 |" in out
    assert "a full distillation with another seed" in out and "spread of seeds:" in out


def test_a_table_that_is_not_complete_is_completed(tmp_path: Path) -> None:
    """Its curves count as known where they are of the same distillation."""
    first, *others = jobs(tmp_path / "one")
    run_job(first)
    curve = read_curve(first.file)
    distillation = {key: value for key, value in SETTINGS.identity().items() if key != "seed"}
    table = CurveTable("command", "machine", "2026-01-01", {}, "formula", "key", distillation, (), (), (curve,))
    table.save(tmp_path / "curves.json")
    for targets, steps, taken in (("key", 6, True), ("other", 6, False), ("key", 8, False)):
        folder = tmp_path / f"{targets}-{steps}"
        sample = [Entry("one", CONFIG, 1.0)]
        again = list_jobs(sample, replace(SETTINGS, steps=steps), 1, "formula", CROPS, folder)
        curves.restore(again, tmp_path / "curves.json", targets)
        assert again[0].file.exists() == taken
    assert others and not others[0].file.exists()
