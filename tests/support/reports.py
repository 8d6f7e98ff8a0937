"""A run with a study, a finished model and measurements, for which nothing was trained."""

from pathlib import Path

import torch

from nas.evaluation.pictures import side_by_side, strip
from nas.machine.files import write_json
from nas.model import TurboVAED
from nas.model.folder import write_model_folder
from nas.study.outcomes import best_outcomes, read_outcomes
from nas.study.run import Run, open_run
from nas.study.settings import RunSettings
from nas.study.study import load_study
from tests.study.test_study import Arithmetic, search
from tests.support.records import evaluation, latency, make_record
from tests.support.small_targets import CONFIG

HOSTILE = "</script><b>clips & more</b>"
"""A folder name that would end a page."""
SETTINGS = RunSettings("wan-tiny", None, HOSTILE, "12ms", "iphone-16-pro", 512, 512, 17, "turbo3d", 27, 0)


def make_searched_run(folder: Path, trials: int = 24) -> Run:
    """A run whose candidates were scored by arithmetic, the two best measured, one of them finished."""
    run, _ = open_run(SETTINGS, folder)
    search(folder, Arithmetic(), trials=trials)
    best = best_outcomes(read_outcomes(load_study(run.storage_url)))[:2]
    records = {each.config.digest(): latency(30.0, "measured").to_dict() for each in best}
    write_json(folder / "measured" / "host.json", {"device": "host", "records": records})
    model = TurboVAED(architecture=CONFIG.to_dict(), teacher="wan-tiny")
    write_model_folder(folder / "models" / "one", model, make_record(), pictures=pictures(0))
    other = make_record(search_score_db=24.5, evaluation=evaluation(30.5))
    write_model_folder(folder / "models" / "two", model, other, pictures=pictures(1))
    return run


def pictures(seed: int, size: int = 32) -> dict[str, bytes]:
    """Of two clips of noise, as finalize makes them."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, bytes] = {}
    for name in ("worst", "median"):
        rows = [torch.rand(1, 3, 5, size, size, generator=generator) * 2 - 1 for _ in range(4)]
        found[f"{name}.png"], found[f"{name}.mp4"] = strip(rows), side_by_side(rows)
    return found
