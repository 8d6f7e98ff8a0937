"""How fast a search looks for decoders: as fast as is still worth having."""

import pytest

from tests.proposals.test_proposals import BUDGET, ask, make_study, quality

WORTHLESS = 0.45
"""Share of the budget below which, in these tests, a decoder is 20 dB behind."""


@pytest.mark.parametrize("cliff", [0.0, 20.0])
def test_nothing_faster_is_looked_for_than_what_is_worth_having(cliff: float) -> None:
    study = make_study("surrogate")
    useful: list[float] = []
    asked: list[float] = []
    for _ in range(40):
        trial, config = ask(study)
        share = BUDGET.share(config)
        limit = trial.user_attrs.get("share", 1.0)
        if limit < 1 and useful:
            asked.append(limit / min(useful))
        study.tell(trial, quality(config) - cliff * (share < WORTHLESS))
        if share >= WORTHLESS or not cliff:
            useful.append(share)
    assert len(asked) > 5 and min(asked) >= 1 / 1.25 - 0.001
    assert min(asked) < 1, "but a little faster"
    if cliff:
        shares = [trial.user_attrs["share"] for trial in study.trials if "share" in trial.user_attrs]
        assert min(shares) >= WORTHLESS / 1.25 - 0.001
