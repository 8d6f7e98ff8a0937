"""Searches against each other: each arm proposes what it says, and what it finds is judged in full."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.benchmark.searches import PUBLISHED, Contest, Search, hold
from nas.machine.files import read_json
from nas.study.settings import RunSettings
from nas.terminal.errors import UserError
from tests.support.run_folders import read_trials
from tests.support.small_targets import make_targets

SETTINGS = RunSettings("formula", None, None, "0.5ms", "iphone-16-pro", 64, 64, 5, "memory2d", steps=2, seed=0)


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    targets = make_targets(train=2, folder=tmp_path / "targets")
    return Contest(SETTINGS, targets, seconds=6, full_steps=2, full_seeds=1, folder=tmp_path)


def proposers(contest: Contest, arm: str) -> Iterator[str]:
    """What proposed each decoder; the name of the design where it was a published one."""
    Search(arm, 0, contest)()
    for trial in read_trials(contest.folder / f"{arm}-0"):
        if "config" in trial.user_attrs:
            yield trial.user_attrs.get("proposer") or trial.user_attrs["preset"]


def test_chance_proposes_by_chance_alone(contest: Contest) -> None:
    assert set(proposers(contest, "random")) == {"random"}


def test_others_are_searches_as_they_are(contest: Contest) -> None:
    """Published designs first, then what a run names as its proposer."""
    found = list(proposers(contest, "evolution"))
    assert found[0].startswith("taehv_wan"), "the only design in this space"
    later = [each for each in found if not each.startswith("taehv_wan")]
    assert later and set(later) <= {"random", "evolution"}, "evolution once it knows enough, nothing of Optuna's own"


def test_published_designs_have_a_shortcut_and_fit(contest: Contest) -> None:
    """Also those that are in no space of a search."""
    Search(PUBLISHED, 0, contest)()
    decoders = read_json(contest.folder / "published-0.json")["decoders"]
    assert {each["title"].split(" ")[0] for each in decoders} > {"taehv_wan"}
    assert all(each["title"].endswith(" + linear") and each["architecture"]["shortcut"] for each in decoders)


def test_a_search_that_scores_nothing_is_one_line(contest: Contest) -> None:
    with pytest.raises(UserError, match="scored nothing in 0 s: give it more --seconds"):
        Search("random", 0, Contest(SETTINGS, contest.targets, 0, 2, 1, contest.folder))()


@pytest.mark.slow
def test_what_is_found_is_judged_and_nothing_is_done_twice(contest: Contest) -> None:
    seen: list[tuple[int, int]] = []
    rows = hold(contest, ["random", "evolution"], 1, 2, lambda *counts: seen.append(counts))
    assert {row["arm"] for row in rows} == {PUBLISHED, "random", "evolution"}
    assert all(len(row["full"]) == 1 and row["full"][0]["test_db"] > 3 for row in rows)
    assert all(bool(row["history"]) == (row["arm"] != PUBLISHED) for row in rows)
    rows = json.loads(json.dumps(rows))
    before = {path: path.stat().st_mtime_ns for path in contest.folder.rglob("*.json")}
    assert hold(contest, ["random", "evolution"], 1, 2, lambda *counts: None) == rows
    assert {path: path.stat().st_mtime_ns for path in contest.folder.rglob("*.json")} == before
