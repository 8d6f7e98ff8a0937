"""The study against a real database, with an evaluator that costs nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nas.distillation import DivergedError
from nas.latency import LatencyRecord
from nas.study.outcomes import Outcome, best_outcomes, pareto_front
from nas.study.study import BudgetUnreachableError, StudyLimits, open_study, read_outcomes, run_study, trained_count
from nas.terminal.errors import UserError
from search_spaces import PRESETS, SEARCH_SPACES, DecoderConfig, LatentSpec, adapt
from tests.support.records import a_record

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
SPACE = SEARCH_SPACES["turbo3d"]


class Arithmetic:
    """Wide is slow and good: latency is a tenth of the summed widths, the score a tenth of that."""

    def __init__(self, interrupt_at: int | None = None, diverge_at: int | None = None, unexportable: str = "") -> None:
        self.scored: list[str] = []
        self.measured: list[str] = []
        self.interrupt_at = interrupt_at
        self.diverge_at = diverge_at
        self.unexportable = unexportable

    def latency(self, config: DecoderConfig) -> LatencyRecord:
        self.measured.append(config.digest())
        milliseconds = sum(stage.width * stage.depth for stage in config.stages) / 100
        by_stage = {"stem": milliseconds / 4, "stage0": milliseconds * 3 / 4}
        return a_record(ms_per_frame=milliseconds, by_stage=by_stage)

    def parameters(self, config: DecoderConfig) -> int:
        return sum(stage.width for stage in config.stages)

    def obstacle(self, config: DecoderConfig) -> str:
        return "rank 6" if config.stages[-1].block.name == self.unexportable else ""

    def score(self, number: int, config: DecoderConfig, report: Callable[[int, float], None]) -> float:
        if len(self.scored) == self.interrupt_at:
            self.interrupt_at = None
            raise KeyboardInterrupt
        self.scored.append(config.digest())
        if len(self.scored) == self.diverge_at:
            raise DivergedError("the loss is nan at step 3")
        score = sum(stage.width for stage in config.stages) / 100
        for step in (10, 20, 30):
            report(step, score)
        return score


def search(
    folder: Path, evaluator: Arithmetic, budget_ms: float = 12.0, trials: int = 8, seed: int = 0
) -> list[Outcome]:
    study = open_study(f"sqlite:///{folder / 'study.db'}", seed, warmup_steps=5)
    seen: list[Outcome] = []
    run_study(study, SPACE, LATENTS, budget_ms, StudyLimits(trials), evaluator, seen.append)
    assert trained_count(study) == trials
    return read_outcomes(study)


def test_over_budget_is_never_trained_and_all_is_recorded(tmp_path: Path) -> None:
    evaluator = Arithmetic()
    found = search(tmp_path, evaluator)
    over = [outcome for outcome in found if outcome.kind == "over budget"]
    trained = [outcome for outcome in found if outcome.kind in ("scored", "pruned")]
    assert over and trained
    assert all(outcome.latency.ms_per_frame > 12 for outcome in over)
    assert all(outcome.latency.ms_per_frame <= 12 for outcome in trained)
    assert not {outcome.config.digest() for outcome in over} & set(evaluator.scored)


def test_what_cannot_be_exported_is_never_trained(tmp_path: Path) -> None:
    evaluator = Arithmetic(unexportable="dense_conv3d")
    found = search(tmp_path, evaluator)
    refused = [outcome for outcome in found if outcome.kind == "not exportable"]
    assert refused and all(outcome.config.stages[-1].block.name == "dense_conv3d" for outcome in refused)
    assert {(outcome.detail, outcome.score) for outcome in refused} == {("rank 6", None)}
    assert not {outcome.config.digest() for outcome in refused} & set(evaluator.scored)
    assert all(outcome.latency.ms_per_frame <= 12 for outcome in refused), "what is over budget costs no lint"


def test_nothing_exportable_ends_the_search(tmp_path: Path) -> None:
    class Never(Arithmetic):
        def obstacle(self, config: DecoderConfig) -> str:
            return "stage0: rank 6"

    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", 0, warmup_steps=5)
    with pytest.raises(UserError, match="nothing within the budget can be exported: stage0: rank 6"):
        run_study(study, SPACE, LATENTS, 12.0, StudyLimits(4, hopeless=10), Never(), lambda outcome: None)


def test_published_designs_come_first(tmp_path: Path) -> None:
    evaluator = Arithmetic()
    found = search(tmp_path, evaluator, trials=2)
    assert len(evaluator.measured) == len(set(evaluator.measured)), "a seed is measured for its width and not again"
    assert found[0].preset == "turbo_vaed_hunyuan"
    assert found[0].config == adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS) and found[0].kind == "over budget"
    fitting = next(outcome for outcome in found if outcome.kind != "over budget")
    name, divisor = fitting.preset.removesuffix(" + linear").split(" x 1/")
    assert fitting.preset.endswith(" + linear")
    assert replace(fitting.config, shortcut=None) == adapt(PRESETS[name], LATENTS, int(divisor))


def test_equal_architectures_are_scored_and_measured_once(tmp_path: Path) -> None:
    evaluator = Arithmetic()
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", 0, warmup_steps=5)
    limits = StudyLimits(4)
    run_study(study, SPACE, LATENTS, 12.0, limits, evaluator, lambda outcome: None)
    best = best_outcomes(read_outcomes(study))[0]
    study.enqueue_trial(SPACE.params(best.config))
    run_study(study, SPACE, LATENTS, 12.0, StudyLimits(5), evaluator, lambda outcome: None)
    same = [outcome for outcome in read_outcomes(study) if outcome.kind == "same"]
    assert [outcome.detail for outcome in same][:1] == [f"as #{best.number}"]
    assert same[0].score == best.score
    assert len(set(evaluator.scored)) == len(evaluator.scored)


def test_interrupted_trial_is_retried_and_nothing_else_is_lost(tmp_path: Path) -> None:
    evaluator = Arithmetic(interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, evaluator)
    before = list(evaluator.scored)
    assert len(before) == 3
    found = search(tmp_path, evaluator)
    assert evaluator.scored[:3] == before
    assert len(evaluator.scored) == len(set(evaluator.scored))
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", 0, warmup_steps=5)
    retried = [trial for trial in study.get_trials() if "retry_of" in trial.user_attrs]
    assert len(retried) == 1
    original = study.get_trials()[retried[0].user_attrs["retry_of"]]
    assert retried[0].params == original.params
    assert original.state == optuna.trial.TrialState.FAIL
    assert sum(outcome.kind in ("scored", "pruned") for outcome in found) == 8


def test_complete_study_does_nothing_more(tmp_path: Path) -> None:
    evaluator = Arithmetic()
    first = search(tmp_path, evaluator)
    scored = len(evaluator.scored)
    assert search(tmp_path, evaluator) == first
    assert len(evaluator.scored) == scored


def test_same_seed_same_proposals(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append([outcome.config.digest() for outcome in search(tmp_path / name, Arithmetic(), seed=3)])
    assert runs[0] == runs[1]


def test_divergence_fails_one_trial_only(tmp_path: Path) -> None:
    found = search(tmp_path, Arithmetic(diverge_at=2))
    failed = [outcome for outcome in found if outcome.kind == "failed"]
    assert len(failed) == 1 and "nan" in failed[0].detail


def test_impossible_budget_names_the_fastest(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", 0, warmup_steps=5)
    evaluator = Arithmetic()
    with pytest.raises(BudgetUnreachableError) as caught:
        run_study(study, SPACE, LATENTS, 0.01, StudyLimits(4, hopeless=30), evaluator, lambda outcome: None)
    assert not evaluator.scored
    fastest = min(outcome.latency.ms_per_frame for outcome in read_outcomes(study))
    assert caught.value.fastest.latency.ms_per_frame == fastest


def test_time_limit_stops_between_candidates(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", 0, warmup_steps=5)
    run_study(study, SPACE, LATENTS, 12.0, StudyLimits(1000, seconds=5), Arithmetic(), lambda outcome: None)
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
