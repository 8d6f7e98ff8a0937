"""The study against a real database, with candidates that cost nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
import pytest

from nas.proposals.registry import make_sampler
from nas.proposals.sampler import ProposalSampler
from nas.study.constraints import Constraint, all_met
from nas.study.costs import Costs, latency_on
from nas.study.limits import BudgetUnreachableError, Ending, StudyLimits
from nas.study.loop import Events, run_study
from nas.study.outcomes import Outcome, best_outcomes, pareto_front, read_outcomes, trained_count
from nas.study.study import open_study
from nas.terminal.errors import UserError
from nas.workers.job import Segment
from nas.workers.pool import InlinePool
from search_spaces import PRESETS, SEARCH_SPACES, DecoderConfig, LatentSpec, adapt
from tests.support.records import latency

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
SPACE = SEARCH_SPACES["turbo3d"]
STEPS = 27
RUNGS = (3, 9, 27)


class Arithmetic:
    """Wide is slow and good: latency is a hundredth of width times depth, summed, the score one of the widths."""

    def __init__(self, interrupt_at: int | None = None, diverge_at: int | None = None, unexportable: str = "") -> None:
        self.scored: list[str] = []
        self.measured: list[str] = []
        self.recorded: list[tuple[int, Segment]] = []
        self.forgotten: list[str] = []
        self.interrupt_at = interrupt_at
        self.diverge_at = diverge_at
        self.unexportable = unexportable

    def candidate(self, config: DecoderConfig) -> "ArithmeticCandidate":
        return ArithmeticCandidate(config, self)


@dataclass(frozen=True)
class ArithmeticCandidate:
    config: DecoderConfig
    world: Arithmetic

    @property
    def costs(self) -> Costs:
        self.world.measured.append(self.config.digest())
        milliseconds = sum(stage.width * stage.depth for stage in self.config.stages) / 100
        return Costs(
            latency(milliseconds),
            parameters=sum(stage.width for stage in self.config.stages),
            latencies={"slow": latency(2 * milliseconds, "measured")},
            memory=1_000_000 * max(stage.width for stage in self.config.stages),
            size=1000 * sum(stage.width * stage.depth for stage in self.config.stages),
        )

    @property
    def problem(self) -> str:
        return "rank 6" if self.world.unexportable in (self.config.stages[-1].block.name, "all") else ""

    def work(self, until: int) -> Callable[[], Segment]:
        return partial(self._train, until)

    def _train(self, until: int) -> Segment:
        world = self.world
        if until == RUNGS[0]:
            if len(world.scored) == world.interrupt_at:
                world.interrupt_at = None
                raise KeyboardInterrupt
            world.scored.append(self.config.digest())
            if len(world.scored) == world.diverge_at:
                return Segment((), failure="the loss is nan at step 3")
        score = sum(stage.width for stage in self.config.stages) / 100
        return Segment(tuple((step, score) for step in RUNGS if step <= until))

    def record(self, number: int, segment: Segment) -> None:
        self.world.recorded.append((number, segment))

    def forget(self) -> None:
        self.world.forgotten.append(self.config.digest())


def make_random(seed: int = 0) -> ProposalSampler:
    """What proposes at random."""
    return make_sampler("random", seed, SPACE, LATENTS)


def budget(milliseconds: float) -> tuple[Constraint, ...]:
    return (Constraint("latency", milliseconds, "ms per frame"),)


def run(study: optuna.Study, limits: StudyLimits, world: Arithmetic, budget_ms: float = 12.0) -> Ending:
    return run_study(study, SPACE, LATENTS, budget(budget_ms), limits, world.candidate, InlinePool(), STEPS, Events())


def search(folder: Path, world: Arithmetic, budget_ms: float = 12.0, trials: int = 8, seed: int = 0) -> list[Outcome]:
    study = open_study(f"sqlite:///{folder / 'study.db'}", make_random(seed), steps=STEPS)
    seen: list[Outcome] = []
    limits, events = StudyLimits(trials), Events(seen.append)
    run_study(study, SPACE, LATENTS, budget(budget_ms), limits, world.candidate, InlinePool(), STEPS, events)
    assert trained_count(study) == trials
    return read_outcomes(study)


def test_over_budget_is_never_trained_and_all_is_recorded(tmp_path: Path) -> None:
    world = Arithmetic()
    found = search(tmp_path, world)
    over = [outcome for outcome in found if outcome.status == "over budget"]
    trained = [outcome for outcome in found if outcome.status in ("scored", "pruned")]
    assert over and trained
    assert all(outcome.latency.ms_per_frame > 12 for outcome in over)
    assert all(outcome.latency.ms_per_frame <= 12 for outcome in trained)
    assert not {outcome.config.digest() for outcome in over} & set(world.scored)
    assert set(world.forgotten) == {outcome.config.digest() for outcome in found}, "nothing is kept to train them on"


def test_what_cannot_be_exported_is_never_trained(tmp_path: Path) -> None:
    world = Arithmetic(unexportable="dense_conv3d")
    found = search(tmp_path, world)
    refused = [outcome for outcome in found if outcome.status == "not exportable"]
    assert refused and all(outcome.config.stages[-1].block.name == "dense_conv3d" for outcome in refused)
    assert {(outcome.detail, outcome.score) for outcome in refused} == {("rank 6", None)}
    assert not {outcome.config.digest() for outcome in refused} & set(world.scored)
    assert all(outcome.latency.ms_per_frame <= 12 for outcome in refused), "what is over budget costs no lint"


def test_nothing_exportable_ends_the_search(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    with pytest.raises(UserError, match="nothing within the budget can be exported: rank 6"):
        run(study, StudyLimits(4, fruitless=10), Arithmetic(unexportable="all"))


def test_published_designs_come_first(tmp_path: Path) -> None:
    world = Arithmetic()
    found = search(tmp_path, world, trials=2)
    assert len(world.measured) == len(set(world.measured)), "a seed is measured for its width and not again"
    assert found[0].preset == "turbo_vaed_hunyuan"
    assert found[0].config == adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS) and found[0].status == "over budget"
    fitting = next(outcome for outcome in found if outcome.status != "over budget")
    name, divisor = fitting.preset.removesuffix(" + linear").split(" x 1/")
    assert fitting.preset.endswith(" + linear")
    assert replace(fitting.config, shortcut=None) == adapt(PRESETS[name], LATENTS, int(divisor))


def test_equal_architectures_are_scored_and_measured_once(tmp_path: Path) -> None:
    world = Arithmetic()
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    limits = StudyLimits(4)
    run(study, limits, world)
    best = best_outcomes(read_outcomes(study))[0]
    study.enqueue_trial(SPACE.params(best.config))
    run(study, StudyLimits(5), world)
    same = [outcome for outcome in read_outcomes(study) if outcome.status == "same"]
    assert [outcome.detail for outcome in same][:1] == [f"as #{best.number}"]
    assert same[0].score == best.score
    assert len(set(world.scored)) == len(world.scored)


def test_interrupted_trial_is_retried_and_nothing_else_is_lost(tmp_path: Path) -> None:
    world = Arithmetic(interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, world)
    before = list(world.scored)
    assert len(before) == 3
    found = search(tmp_path, world)
    assert world.scored[:3] == before
    assert len(world.scored) == len(set(world.scored))
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    retried = [trial for trial in study.get_trials() if "retry_of" in trial.user_attrs]
    assert len(retried) == 1
    original = study.get_trials()[retried[0].user_attrs["retry_of"]]
    assert retried[0].params == original.params
    assert original.state == optuna.trial.TrialState.FAIL
    assert sum(outcome.status in ("scored", "pruned") for outcome in found) == 8


def test_complete_study_does_nothing_more(tmp_path: Path) -> None:
    world = Arithmetic()
    first = search(tmp_path, world)
    scored = len(world.scored)
    assert search(tmp_path, world) == first
    assert len(world.scored) == scored


def test_same_seed_same_proposals(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append([outcome.config.digest() for outcome in search(tmp_path / name, Arithmetic(), seed=3)])
    assert runs[0] == runs[1]


def test_divergence_fails_one_trial_only(tmp_path: Path) -> None:
    found = search(tmp_path, Arithmetic(diverge_at=2))
    failed = [outcome for outcome in found if outcome.status == "failed"]
    assert len(failed) == 1 and "nan" in failed[0].detail


def test_impossible_budget_names_the_fastest(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    world = Arithmetic()
    with pytest.raises(BudgetUnreachableError) as caught:
        run(study, StudyLimits(4, fruitless=30), world, 0.01)
    assert not world.scored
    fastest = min(outcome.latency.ms_per_frame for outcome in read_outcomes(study))
    assert caught.value.closest.latency.ms_per_frame == fastest


EVERY = (
    Constraint("latency", 12.0, "ms per frame on fast"),
    Constraint(latency_on("slow"), 20.0, "ms per frame on slow"),
    Constraint("memory", 96.0, "MB of activations"),
    Constraint("parameters", 0.0005, "M parameters"),
    Constraint("size", 1.1, "MB of package"),
)
"""A limit on everything, in the order of the names."""


def test_every_constraint_is_met_before_anything_is_trained(tmp_path: Path) -> None:
    """All are told to Optuna in one order, and what is violated most is said."""
    world = Arithmetic()
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    found: list[Outcome] = []
    limits, events = StudyLimits(4), Events(found.append)
    run_study(study, SPACE, LATENTS, EVERY, limits, world.candidate, InlinePool(), STEPS, events)
    assert sorted(found, key=lambda each: each.number) == read_outcomes(study)
    trained = [each for each in found if each.status in ("scored", "pruned")]
    assert len(trained) == 4 and all(all_met(EVERY, each.costs.values()) for each in trained)
    over = [each for each in found if each.status == "over budget"]
    assert over and not any(all_met(EVERY, each.costs.values()) for each in over)
    assert not {each.config.digest() for each in over} & set(world.scored)
    words = {each.detail.split(" ", 1)[1] if each.detail else "first" for each in over}
    assert len(words) >= 2 and words <= {"first", *(each.unit for each in EVERY[1:])}
    finished = [trial for trial in study.get_trials() if "status" in trial.user_attrs]
    assert {tuple(trial.constraints) for trial in finished} == {tuple(each.name for each in EVERY)}


def test_of_what_is_unreachable_the_closest_is_named_with_what_it_violates_most(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    most = (Constraint("latency", 12.0, "ms per frame"), Constraint("memory", 1.0, "MB of activations"))
    world, limits = Arithmetic(), StudyLimits(4, fruitless=15)
    with pytest.raises(BudgetUnreachableError, match="MB of activations") as caught:
        run_study(study, SPACE, LATENTS, most, limits, world.candidate, InlinePool(), STEPS, Events())
    assert caught.value.constraint.name == "memory" and not world.scored
    assert caught.value.value == min(each.costs.values()["memory"] for each in read_outcomes(study))


def test_time_limit_stops_between_candidates(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    assert run(study, StudyLimits(1000, seconds=5), Arithmetic()) == "time"
    assert 0 < trained_count(study) < 1000


def test_pareto_front_has_no_dominated_point(tmp_path: Path) -> None:
    found = search(tmp_path, Arithmetic(), trials=10)
    front = pareto_front(found)
    scored = best_outcomes(found)
    assert front[-1].score == scored[0].score
    for point in front:
        for other in scored:
            better = other.latency.ms_per_frame <= point.latency.ms_per_frame and (other.score or 0) > (
                point.score or 0
            )
            assert not better
    assert [each.latency.ms_per_frame for each in front] == sorted(each.latency.ms_per_frame for each in front)


class OneDecoder(Arithmetic):
    """A world in which every proposal is the same decoder."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config

    def candidate(self, config: DecoderConfig) -> ArithmeticCandidate:
        return ArithmeticCandidate(self.config, self)


def test_a_search_without_anything_new_stops_and_says_so(tmp_path: Path) -> None:
    """Also where a candidate was trained before: proposals that are known never count towards the trials."""
    world = OneDecoder(adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS, 4))
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    assert run(study, StudyLimits(8, fruitless=12), world, 100.0) == "nothing new"
    statuses = [outcome.status for outcome in read_outcomes(study)]
    assert statuses == ["scored", *["same"] * 12]
    again = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    assert run(again, StudyLimits(8, fruitless=12), world, 100.0) == "nothing new"
    assert len(read_outcomes(again)) == 14, "one more proposal is enough to see that nothing has changed"


@pytest.mark.slow
def test_a_candidate_that_is_new_starts_the_count_again(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", make_random(), steps=STEPS)
    assert run(study, StudyLimits(8, fruitless=100), Arithmetic()) == "trials"
    untrained = [outcome.status not in ("scored", "pruned") for outcome in read_outcomes(study)]
    longest = max(len(part) for part in "".join("01"[each] for each in untrained).split("0"))
    other = open_study(f"sqlite:///{tmp_path / 'other.db'}", make_random(), steps=STEPS)
    assert 1 < longest < sum(untrained)
    assert run(other, StudyLimits(8, fruitless=longest + 1), Arithmetic()) == "trials"
    assert [each.config for each in read_outcomes(other)] == [each.config for each in read_outcomes(study)]
