"""What the report says of a run."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.distillation.recipes import CPU
from nas.model import TurboVAED
from nas.model.folder import write_model_folder
from nas.report.contents import page_contents
from nas.report.decoders import describe_stages
from nas.report.importance import FEWEST
from nas.report.page import render
from nas.search import make_parser
from nas.study.options import run_settings, timed_decode
from nas.study.run import Run, open_run
from nas.study.settings import RunSettings, command_arguments
from nas.teachers import published_latents
from nas.terminal.errors import UserError
from search_spaces import PRESETS, adapt
from tests.support.records import make_record
from tests.support.reports import SETTINGS, make_searched_run
from tests.support.small_decoders import SPECS
from tests.support.small_targets import CONFIG


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_searched_run(tmp_path_factory.mktemp("report") / "R")


def contents(run: Run) -> dict[str, Any]:
    return page_contents(run, run.folder / "models")


def test_every_proposal_is_there_with_what_became_of_it(run: Run) -> None:
    found = contents(run)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found, allow_nan=False))
    by_status = {each["status"] for each in found["decoders"]}
    assert {"scored", "over budget"} <= by_status
    for each in found["decoders"]:
        assert (each["score"] is None) == (each["status"] == "over budget")
        assert (each["ms"] > found["limit"]) == (each["status"] == "over budget")
        assert sum(stage["parameters"] for stage in each["stages"]) > 0
    assert any(each["preset"] and each["origin"] == "published design" for each in found["decoders"])
    assert any(each["origin"] == "random" for each in found["decoders"])
    scored = [each for each in found["decoders"] if each["status"] == "scored"]
    assert len(scored) >= FEWEST and found["importance"] and not found["no_importance"]


def test_the_front_is_what_no_other_beats(run: Run) -> None:
    scored = [each for each in contents(run)["decoders"] if each["status"] == "scored"]
    for each in scored:
        beaten = any(other["ms"] <= each["ms"] and other["score"] > each["score"] for other in scored)
        assert not (each["front"] and beaten)
    assert any(each["front"] for each in scored)


def test_measurements_and_models_are_told_apart_from_predictions(run: Run) -> None:
    found = contents(run)
    measured = [each for each in found["decoders"] if each["measured"] is not None]
    assert found["measured_on"] == "host" and measured and all(each["measured"] == 30.0 for each in measured)
    assert all(each["kind"] == "predicted" for each in found["decoders"])
    model, _ = found["models"]
    assert (model["predicted_ms"], model["measured_ms"], model["search_db"]) == (20.0, 100.0, 25.0)


def test_a_model_says_what_it_was_distilled_on(tmp_path: Path) -> None:
    run = make_searched_run(tmp_path / "R", trials=6)
    record = make_record()
    steps = record.distillation["steps"]
    own = record.distillation | {"latents": {"count": 3, "sha256": "0" * 64}}
    model = TurboVAED(architecture=CONFIG.to_dict(), teacher="wan-tiny")
    write_model_folder(run.folder / "models" / "own", model, replace(record, distillation=own))
    said = contents(run)
    found = [model["distilled_for"] for model in said["models"]]
    assert (
        found[0] == f"{steps} steps on {record.clips}" and found[1] == f"{found[0]} and 3 latents given without a video"
    )
    assert all(f">{each}<" in render(said) for each in found)


def test_pictures_are_those_of_the_models_as_far_as_there_is_room(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = contents(run)["pictures"]
    assert [(each["model"], each["name"]) for each in found["shown"]] == [
        (0, "worst"), (0, "median"), (1, "worst"), (1, "median")
    ]  # fmt: skip
    kind, data = found["shown"][1]["strip"].split(",")
    assert kind == "data:image/png;base64" and found["left_out"] == 0
    assert base64.b64decode(data) == (run.folder / "models/one/pictures/median.png").read_bytes()
    files = [path.stat().st_size for path in sorted((run.folder / "models/one/pictures").iterdir())]
    monkeypatch.setattr("nas.report.pictures._MOST_BYTES", sum(files))
    found = contents(run)["pictures"]
    assert [each["model"] for each in found["shown"]] == [0, 0] and found["left_out"] == 2


def test_a_stage_says_what_it_is() -> None:
    config = adapt(PRESETS["turbo_vaed_hunyuan"], SPECS["16ch-4x8x8-leading"])
    stages = describe_stages(config, {"stem": 1.0, "stage1": 2.5})
    assert [stage["name"] for stage in stages][:3] == ["stem", "stage0", "stage1"]
    first = config.stages[0]
    assert stages[1]["what"] == f"{first.depth} x depthwise separable conv3d; {first.width} channels"
    assert [stage["ms"] for stage in stages[:3]] == [1.0, 0.0, 2.5]


def test_the_command_asks_for_the_same_search(tmp_path: Path) -> None:
    """Every setting that a search has, none of them as it is by default."""
    weights, clips = str(tmp_path / "weights"), str(tmp_path / "clips")
    asked = RunSettings("wan", weights, clips, "40fps", "host", 128, 64, 9, "turbo3d", 27, 3)
    asked = replace(asked, more_devices=("iphone-16-pro",), proposer="tpe")
    asked = replace(asked, max_params="5M", max_memory="200MB", max_size="20MB")
    arguments = make_parser().parse_args(command_arguments(replace(asked, plugins=("my_lab",))))
    assert run_settings(arguments, timed_decode(arguments, published_latents(asked.teacher)), CPU) == asked
    assert arguments.plugin == ["my_lab"], "which are settings once they are loaded"


def test_a_run_before_its_first_trial_has_a_page(tmp_path: Path) -> None:
    run, _ = open_run(SETTINGS, tmp_path / "new")
    found = contents(run)
    assert (found["decoders"], found["models"]) == ([], []) and "no study yet" in found["no_importance"]


def test_a_damaged_study_is_one_line(tmp_path: Path) -> None:
    run, _ = open_run(SETTINGS, tmp_path / "R")
    (run.folder / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"study\.db"):
        contents(run)
