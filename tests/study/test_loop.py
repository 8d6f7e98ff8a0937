"""The loop of a search and its rungs: what goes on, what stops, what takes no time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest

from nas.study.limits import StudyLimits
from nas.study.loop import Events, run_study
from nas.study.outcomes import Outcome, read_outcomes
from nas.study.peers import Held, NoPeers
from nas.study.rungs import FrontPruner, next_rung, rungs
from nas.study.study import open_study
from nas.workers.pool import InlinePool
from search_spaces import DecoderConfig
from tests.study.test_study import (
    LATENTS,
    SPACE,
    STEPS,
    Arithmetic,
    ArithmeticCandidate,
    budget,
    make_random,
    search,
)


@dataclass(frozen=True)
class Bound:
    """A budget that knows the latency of `Arithmetic`."""

    limit_ms: float

    def share(self, config: DecoderConfig) -> float:
        return sum(stage.width * stage.depth for stage in config.stages) / 100 / self.limit_ms

    def fits(self, config: DecoderConfig) -> bool:
        return self.share(config) <= 1


def test_published_designs_known_to_be_over_the_budget_take_no_time(tmp_path: Path) -> None:
    world = Arithmetic()
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    asked = study, SPACE, LATENTS, budget(12.0), StudyLimits(3), world.candidate, InlinePool(), STEPS
    run_study(*asked, Events(), budget=Bound(12.0))
    found = read_outcomes(study)
    published = [outcome for outcome in found if outcome.preset]
    assert published and all(outcome.status != "over budget" for outcome in published)


def test_training_begins_with_the_first_published_design_and_a_search_cut_off_there_has_each_once(
    tmp_path: Path,
) -> None:
    world, address = Arithmetic(interrupt_at=0), f"sqlite:///{tmp_path / 'study.db'}"

    def search_on(trials: int) -> list[Outcome]:
        study = open_study(address, make_random(), steps=STEPS)
        run_study(
            study, SPACE, LATENTS, budget(12.0), StudyLimits(trials), world.candidate, InlinePool(), STEPS, Events()
        )
        return [outcome for outcome in read_outcomes(study) if outcome.preset]

    with pytest.raises(KeyboardInterrupt):
        search_on(1)
    looked_at = set(world.measured)
    published = search_on(12)
    digests = [outcome.config.digest() for outcome in published]
    assert len(set(digests)) == len(digests) > 3, "none twice"
    assert len(looked_at) < len(set(digests)), "the others were looked at when their turn came"
    other = tmp_path / "undisturbed"
    other.mkdir()
    assert {outcome.preset for outcome in search(other, Arithmetic(), trials=12)} - {""} == {
        outcome.preset for outcome in published
    }


class Waiting(NoPeers):
    """Others, who wait while it is this search's turn."""

    waiting = False

    @contextmanager
    def turn(self) -> Iterator[Held]:
        self.waiting = True
        yield lambda: True
        self.waiting = False


def test_nobody_waits_while_it_is_found_out_how_narrow_a_published_design_has_to_be(tmp_path: Path) -> None:
    world, peers = Arithmetic(), Waiting()
    looked_at: list[bool] = []

    def candidate(config: DecoderConfig) -> ArithmeticCandidate:
        looked_at.append(peers.waiting)
        return world.candidate(config)

    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    limits, asked = StudyLimits(4), (study, SPACE, LATENTS, budget(12.0))
    run_study(*asked, limits, candidate, InlinePool(), STEPS, Events(), peers=peers)
    assert len(looked_at) > 4 and not any(looked_at)


def test_rungs_end_at_the_whole_length() -> None:
    assert rungs(450) == (50, 150, 450)
    assert rungs(2) == (1, 2) and rungs(1) == (1,)
    assert [next_rung((50, 150, 450), done) for done in (0, 50, 149)] == [50, 150, 150]


def make_study(points: list[tuple[float, float]]) -> optuna.Study:
    """Trials that have reached the first rung: latency in milliseconds and score in dB of each."""
    study = optuna.create_study(direction="maximize", pruner=FrontPruner((10, 30, 90)))
    for latency, score in points:
        trial = study.ask()
        trial.set_user_attr("latency", {"ms_per_frame": latency})
        trial.report(score, 10)
    return study


def stopped(points: list[tuple[float, float]]) -> list[bool]:
    study = make_study(points)
    return [study.pruner.prune(study, trial) for trial in study.get_trials()]


def test_a_fast_decoder_is_not_stopped_because_slow_ones_are_better() -> None:
    points = [(1.0, 20.0), (8.0, 30.0), (8.1, 29.0), (8.2, 29.5), (8.3, 28.0), (8.4, 29.1)]
    assert not stopped(points)[0], "nothing is faster"
    assert stopped(points)[1:] == [False, True, False, True, True], "the best third of the slow ones go on"


def test_what_is_worse_and_slower_is_stopped() -> None:
    assert stopped([(2.0, 30.0), (3.0, 29.0), (4.0, 28.0), (5.0, 27.0)]) == [False, True, True, True]


@pytest.mark.parametrize("points", [[(2.0, 30.0), (3.0, 29.0)], [(2.0, 30.0), (3.0, 0.0), (4.0, 29.0)]])
def test_the_first_ones_go_on(points: list[tuple[float, float]]) -> None:
    """Failed ones, which are told with a score of 0, do not count."""
    assert not any(stopped(points))


def test_only_rungs_before_the_last_stop() -> None:
    study = make_study([(2.0, 30.0), (3.0, 29.0), (4.0, 28.0)])
    worst = study.ask()
    worst.set_user_attr("latency", {"ms_per_frame": 5.0})
    for step in (5, 90):
        worst.report(1.0, step)
        assert not worst.should_prune()
    worst.report(1.0, 10)
    assert not study.pruner.prune(study, study.get_trials()[-1]), "it is past that rung"
