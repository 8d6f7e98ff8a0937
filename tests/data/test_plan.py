"""Which crops of which clips are kept where not all may be."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nas.data.clips import Clip
from nas.data.plan import Part, bounded, describe_choice, total_crops
from nas.data.settings import Split


def plan(train: int, score: int, test: int, crops: tuple[int, int, int] = (48, 8, 4)) -> tuple[Part, ...]:
    """So many clips in each split."""
    counts: dict[Split, tuple[int, int]] = {
        "train": (train, crops[0]),
        "score": (score, crops[1]),
        "test": (test, crops[2]),
    }
    return tuple(
        Part(split, Clip(Path(f"{split}/{number}.mp4"), 0, 17, f"{split}{number}"), each)
        for split, (clips, each) in counts.items()
        for number in range(clips)
    )


def clips_by_split(parts: tuple[Part, ...]) -> dict[str, int]:
    return dict(Counter(part.split for part in parts))


@pytest.mark.parametrize("most", [*range(3, 70), 100, 333, 400, 500, 519, 520, 521])
def test_as_many_crops_as_may_be_and_no_more(most: int) -> None:
    """10 clips to train on, 4 to score on, 2 to test on: 520 crops."""
    asked = plan(10, 4, 2)
    chosen = bounded(asked, most, seed=0)
    assert total_crops(chosen) <= most
    assert set(clips_by_split(chosen)) == {"train", "score", "test"}
    if most >= 520:
        assert chosen == asked
    elif most >= len(asked):
        limit = max(part.crops for part in chosen)
        assert chosen == tuple(replace(part, crops=min(part.crops, limit)) for part in asked)
        assert sum(min(part.crops, limit + 1) for part in asked) > most, "one more of each would be too much"
    else:
        assert total_crops(chosen) == len(chosen) == len(set(chosen)) and len(chosen) > most - 3
        asked_for = {"train": 48, "score": 8, "test": 4}
        assert {replace(part, crops=asked_for[part.split]) for part in chosen} <= set(asked)


def test_splits_keep_their_share_of_clips() -> None:
    assert clips_by_split(bounded(plan(12_000, 4000, 4000), 2000, 0)) == {"train": 1200, "score": 400, "test": 400}
    assert clips_by_split(bounded(plan(1000, 1, 1), 10, 0)) == {"train": 8, "score": 1, "test": 1}
    assert clips_by_split(bounded(plan(1000, 1, 1), 3, 0)) == {"train": 1, "score": 1, "test": 1}
    assert clips_by_split(bounded(plan(1000, 300, 1, (48, 8, 0))[:-1], 2, 0)) == {"train": 1, "score": 1}


def test_which_clips_are_kept_is_up_to_seed_and_content_and_hardly_to_what_is_added() -> None:
    asked = plan(100, 30, 20)
    chosen = {seed: bounded(asked, 60, seed) for seed in range(3)}
    assert chosen[0] == bounded(asked, 60, 0) and len(set(chosen.values())) == 3
    assert set(bounded(asked[::-1], 60, 0)) == set(chosen[0])
    moved = tuple(replace(part, clip=replace(part.clip, path=Path("elsewhere") / part.clip.path)) for part in asked)
    assert [part.clip.content for part in bounded(moved, 60, 0)] == [part.clip.content for part in chosen[0]]
    more = bounded((*asked, Part("train", Clip(Path("new.mp4"), 0, 17, "new"), 48)), 60, 0)
    assert len(set(more) ^ set(chosen[0])) <= 4
    places = sorted(int(part.clip.content.removeprefix("train")) for part in chosen[0] if part.split == "train")
    assert places[0] < 15 and places[-1] > 85 and any(40 <= place < 60 for place in places), "from all over"


def test_what_is_left_is_said_in_one_line() -> None:
    asked = plan(10, 4, 0)
    assert describe_choice(asked, bounded(asked, 45, 0)) == "3 of 48 crops of each clip to train on, 3 of 8 to score on"
    assert (
        describe_choice(asked, bounded(asked, 7, 0)) == "1 crop each of 5 of 10 clips to train on, 2 of 4 to score on"
    )
    judged = plan(0, 0, 5)
    assert describe_choice(judged, bounded(judged, 11, 0)) == "2 of 4 crops of each clip to test on"
