"""Trials of an earlier run count for another budget, and are not trained again."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nas.study.constraints import Constraint
from nas.study.imports import find_earlier_run, import_trials
from nas.study.limits import StudyLimits
from nas.study.loop import Events, run_study
from nas.study.outcomes import Outcome, best_outcomes, read_outcomes, trained_count
from nas.study.run import Run, open_run
from nas.study.study import load_study, open_study
from nas.terminal.errors import UserError
from nas.workers.pool import InlinePool
from search_spaces import DecoderConfig
from tests.study.test_study import LATENTS, SPACE, STEPS, Arithmetic, budget, make_random, search
from tests.support.small_runs import CONTENTS, SETTINGS

SETTINGS_HERE = replace(SETTINGS, budget="12ms", steps=STEPS)
CONTENTS_HERE = CONTENTS | {"device": {"iphone-16-pro": "1"}}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of six trained candidates within 12 ms; it is only read."""
    run, _ = open_run(SETTINGS_HERE, tmp_path_factory.mktemp("earlier") / "old", CONTENTS_HERE)
    search(run.folder, Arithmetic(), trials=6)
    return run


def new_study(folder: Path) -> optuna.Study:
    folder.mkdir(exist_ok=True)
    return open_study(f"sqlite:///{folder / 'study.db'}", make_random(), steps=STEPS)


def take_over(study: optuna.Study, old: Run, limits: tuple[Constraint, ...], world: Arithmetic) -> list[Outcome]:
    taken: list[Outcome] = []
    left_out: list[DecoderConfig] = []
    import_trials(study, old, limits, world.candidate, taken.append, lambda config, reason: left_out.append(config))
    assert not left_out
    return taken


def test_scores_stand_and_what_a_decoder_costs_is_found_out_anew(old: Run, tmp_path: Path) -> None:
    before = {each.number: each for each in read_outcomes(load_study(old.storage_url))}
    world, study = Arithmetic(), new_study(tmp_path / "new")
    taken = take_over(study, old, budget(8.0), world)
    assert len(taken) == 6 and not world.scored and read_outcomes(study) == taken
    for each in taken:
        first = before[int(each.origin.rsplit("#", 1)[1])]
        assert each.origin == f"{old.folder} #{first.number}"
        assert (each.config, each.score, each.preset) == (first.config, first.score, first.preset)
        assert each.status == (first.status if each.latency.ms_per_frame <= 8.0 else "over budget")
    assert {"scored", "over budget"} <= {each.status for each in taken}
    assert len(world.measured) == len(taken)
    for trial in study.get_trials():
        latency = trial.user_attrs["latency"]["ms_per_frame"]
        assert trial.constraints == {"latency": pytest.approx((latency - 8.0) / 8.0)}


def test_they_count_and_are_not_trained_again(old: Run, tmp_path: Path) -> None:
    """A second time nothing is added; a search goes on from them, and never trains one of them."""
    world, study = Arithmetic(), new_study(tmp_path / "new")
    taken = take_over(study, old, budget(8.0), world)
    assert take_over(study, old, budget(8.0), world) == []
    count = trained_count(study)
    limits = StudyLimits(count + 2)
    run_study(study, SPACE, LATENTS, budget(8.0), limits, world.candidate, InlinePool(), STEPS, Events())
    assert trained_count(study) == count + 2 and len(world.scored) == 2
    assert not {each.config.digest() for each in taken} & set(world.scored)
    assert best_outcomes(read_outcomes(study))


def test_over_one_budget_they_still_count_for_the_next(old: Run, tmp_path: Path) -> None:
    tight, _ = open_run(replace(SETTINGS_HERE, budget="1ms"), tmp_path / "tight", CONTENTS_HERE)
    taken = take_over(new_study(tight.folder), old, budget(1.0), Arithmetic())
    assert {each.status for each in taken} == {"over budget"}
    again = take_over(new_study(tmp_path / "loose"), tight, budget(12.0), Arithmetic())
    first = [each for each in read_outcomes(load_study(old.storage_url)) if each.score is not None]
    assert [(each.status, each.score) for each in again] == [
        (each.status, each.score) for each in first if each.status in ("scored", "pruned")
    ]


def test_scores_of_another_kind_of_search_are_refused(old: Run, tmp_path: Path) -> None:
    other_budget = replace(SETTINGS_HERE, budget="8ms", device="host", height=64, max_size="20MB")
    other_device = CONTENTS_HERE | {"device": {"host": "2"}}
    assert find_earlier_run(old.folder, None, other_budget, other_device) == old
    assert find_earlier_run(None, None, other_budget, other_device) is None
    for change in ({"steps": 3}, {"seed": 1}, {"space": "hybrid+"}, {"teacher": "wan"}):
        changed = replace(other_budget, **change)
        with pytest.raises(UserError, match=f"do not count here: it was made with --{next(iter(change))}"):
            find_earlier_run(old.folder, None, changed, other_device)
    clips = other_device | {"clip": {"a.mp4": "train 1", "b.mp4": "test 3"}}
    with pytest.raises(UserError, match=r"something else \(clip b.mp4 has changed\)"):
        find_earlier_run(old.folder, None, other_budget, clips)
    with pytest.raises(UserError, match="name an earlier run"):
        find_earlier_run(old.folder, old.folder, SETTINGS_HERE, CONTENTS_HERE)
    with pytest.raises(UserError, match="is not a run folder"):
        find_earlier_run(tmp_path / "nowhere", None, SETTINGS_HERE, CONTENTS_HERE)
