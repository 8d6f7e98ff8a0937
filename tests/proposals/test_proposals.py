"""Proposers: points of the space within the budget, new ones, whoever else works on the study."""

import random
from collections.abc import Iterator, Sequence
from math import log2
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from blocks import get_block
from nas.latency import Workload
from nas.latency.devices import PredictedDevice, open_device
from nas.proposals.budget import PredictedBudget, budget_on
from nas.proposals.choosers import Follower, Thrifty
from nas.proposals.evolution import mutate
from nas.proposals.history import History, Known
from nas.proposals.names import PROPOSERS
from nas.proposals.proposer import Setting, first_config, random_config
from nas.proposals.registry import make_sampler
from nas.proposals.sampler import ProposalSampler, note_origin
from nas.terminal.errors import UserError
from search_spaces import SEARCH_SPACES, DecoderConfig
from tests.support.small_decoders import SPECS

SPEC = SPECS["16ch-4x8x8-leading"]
SPACE = SEARCH_SPACES["memory2d"]


class Widths:
    """A budget on the sum of all widths, which takes no time."""

    def __init__(self, most: int) -> None:
        self.most = most

    def share(self, config: DecoderConfig) -> float:
        return sum(stage.width for stage in config.stages) / self.most

    def fits(self, config: DecoderConfig) -> bool:
        return self.share(config) <= 1


BUDGET = Widths(400)
SETTING = Setting(SPACE, SPEC, BUDGET)


def quality(config: DecoderConfig) -> float:
    """Widths and depths count, and a kind of block."""
    kinds = sum(stage.block.name == "memory_conv2d" for stage in config.stages)
    return sum(log2(stage.width) + 0.3 * stage.depth for stage in config.stages) / len(config.stages) + 0.5 * kinds


def make_study(name: str, storage: str | optuna.storages.BaseStorage | None = None, seed: int = 0) -> optuna.Study:
    sampler = make_sampler(name, seed, SPACE, SPEC, BUDGET)
    return optuna.create_study(
        study_name="search", storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )


def ask(study: optuna.Study) -> tuple[optuna.Trial, DecoderConfig]:
    """As a search does: the choices, then what is known of the decoder."""
    trial = study.ask()
    config = SPACE.suggest(trial, SPEC)
    note_origin(study.sampler, trial)
    trial.set_user_attr("config", config.to_dict())
    trial.set_user_attr("digest", config.digest())
    trial.set_constraint("latency", BUDGET.share(config) - 1)
    return trial, config


def run(study: optuna.Study, count: int) -> list[DecoderConfig]:
    configs = []
    for _ in range(count):
        trial, config = ask(study)
        if BUDGET.fits(config):
            study.tell(trial, quality(config))
        else:
            study.tell(trial, state=TrialState.PRUNED)
        configs.append(config)
    return configs


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield


@pytest.mark.parametrize("name", PROPOSERS)
def test_proposals_are_new_and_within_the_budget(name: str) -> None:
    study = make_study(name)
    configs = run(study, 20)
    assert len({config.digest() for config in configs}) == len(configs)
    assert sum(not BUDGET.fits(config) for config in configs) <= (2 if name == "tpe" else 0)
    assert sum(not BUDGET.fits(SPACE.suggest(Thrifty(random.Random(seed)), SPEC)) for seed in range(20)) >= 10
    for trial, config in zip(study.trials, configs, strict=True):
        assert SPACE.params(config) == trial.params
    names = {trial.user_attrs["proposer"] for trial in study.trials[14:]}
    assert names <= ({name, "evolution"} if name == "program" else {name})


@pytest.mark.parametrize("name", PROPOSERS)
def test_two_workers_and_a_resume_propose_other_decoders(name: str) -> None:
    """With one seed, and trials around that are running, failed and pruned."""
    check_shared(name, optuna.storages.InMemoryStorage())


def test_workers_may_share_a_database(tmp_path: Path) -> None:
    check_shared("evolution", f"sqlite:///{tmp_path / 'study.db'}")


def check_shared(name: str, storage: str | optuna.storages.BaseStorage) -> None:
    one, other = make_study(name, storage), make_study(name, storage)
    run(one, 8)
    trial, config = ask(one)
    study_trial, lost = ask(other)
    one.tell(study_trial.number, state=TrialState.FAIL)
    trial.report(quality(config) - 1, 5)
    one.tell(trial, state=TrialState.PRUNED)
    running, _ = ask(other)
    open_trial = one.ask()  # another worker has chosen nothing yet
    found = [config, lost, *run(one, 2), *run(other, 1), *run(make_study(name, storage), 1)]
    assert len({each.digest() for each in found}) == len(found)
    assert SPACE.suggest(open_trial, SPEC)
    assert one.trials[running.number].state == TrialState.RUNNING


def test_a_study_goes_on_as_it_would_have() -> None:
    storage = optuna.storages.InMemoryStorage()
    whole = run(make_study("evolution"), 12)
    assert run(make_study("evolution", storage), 10) + run(make_study("evolution", storage), 2) == whole
    assert run(make_study("evolution", seed=1), 3) != whole[:3]


def test_queued_choices_are_not_changed() -> None:
    study = make_study("evolution")
    config = SPACE.suggest(Thrifty(random.Random(9)), SPEC)
    study.enqueue_trial(SPACE.params(config), user_attrs={"preset": "a design"})
    trial, proposed = ask(study)
    assert proposed == config and "proposer" not in trial.user_attrs
    study.enqueue_trial({"upsampling_stages": 2})
    trial, proposed = ask(study)
    assert trial.params["upsampling_stages"] == 2 and SPACE.params(proposed) == trial.params


def test_children_name_their_parent_and_differ_little() -> None:
    study = make_study("evolution")
    run(study, 30)
    trials = study.trials
    children = [trial for trial in trials if "parent" in trial.user_attrs]
    assert len(children) >= 20
    kept = []
    for child in children:
        parent = trials[child.user_attrs["parent"]]
        assert parent.number < child.number and child.params != parent.params
        kept.append(sum(parent.params.get(name) == value for name, value in child.params.items()) / len(child.params))
    assert sum(kept) / len(kept) > 0.7


@pytest.mark.parametrize("name", ["evolution", "surrogate"])
def test_what_learns_finds_better_ones_than_chance(name: str) -> None:
    """By the mean score of what is proposed once something is known."""

    def mean(name: str) -> float:
        study = make_study(name)
        run(study, 24)
        return sum(trial.value or 0.0 for trial in study.trials[12:]) / 12

    assert mean(name) > mean("random") + 0.3


def test_the_surrogate_looks_for_faster_ones_too() -> None:
    """About every other proposal is held to a share of the budget, also below the fastest known, and fills a front."""
    study = make_study("surrogate")
    run(study, 40)
    held = [trial for trial in study.trials if trial.user_attrs.get("share", 1.0) < 1]
    informed = [trial for trial in study.trials if "share" in trial.user_attrs]
    assert 0.3 < len(held) / len(informed) < 0.7
    shares = {trial.number: BUDGET.share(DecoderConfig.from_dict(trial.user_attrs["config"])) for trial in study.trials}
    for trial in held:
        earlier = [share for number, share in shares.items() if number < trial.number]
        assert trial.user_attrs["share"] >= min(earlier) / 1.25 - 0.001
        assert shares[trial.number] <= trial.user_attrs["share"] + 0.001
    assert len({trial.user_attrs["share"] for trial in held}) > 5
    first = min(share for number, share in shares.items() if number < held[0].number)
    assert min(shares[trial.number] for trial in held) < first, "the front goes on beyond it"


def test_pruned_ones_count_by_what_others_gained_from_their_last_step_on() -> None:
    study = make_study("random")
    for final in (20.0, 22.0, None):
        trial, _ = ask(study)
        trial.report(15.0 if final is None else final - 4, 10)
        if final is None:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, final)
    for status in ("over budget", "failed"):
        trial, _ = ask(study)
        trial.set_user_attr("status", status)
        if status == "failed":
            trial.report(0.0, 3)
        study.tell(trial, state=TrialState.PRUNED)
    history = History()
    history.read(study)
    assert [known.score for known in history.known] == [20.0, 22.0, 19.0]
    assert history.best(1)[0].number == 1 and len(history.proposed) == 5


def test_a_gain_is_known_from_step_to_step() -> None:
    """Of one that was stopped early, where nothing that went on has ended."""
    study = make_study("random")
    for values in ([15.0], [16.0, 18.0], [16.0, 19.0], [17.0, 20.0, 21.0]):
        trial, _ = ask(study)
        for step, value in enumerate(values):
            trial.report(value, step)
        study.tell(trial, state=TrialState.PRUNED)
    history = History()
    history.read(study)
    assert [known.score for known in history.known] == [15.0 + 3 + 1, 18.0 + 1, 19.0 + 1, 21.0]


def test_one_search_never_proposes_twice_what_is_under_way() -> None:
    study = make_study("evolution")
    run(study, 8)
    under_way = []
    for _ in range(12):
        trial = study.ask()
        under_way.append(SPACE.suggest(trial, SPEC).digest())
    assert len(set(under_way)) == len(under_way)


def test_a_mutation_departs_in_one_or_two_choices() -> None:
    params: dict[str, Any] = {"a": 1, "b": 2, "c": "x"}
    follower = Follower(params, Thrifty(random.Random(0)), departures=["b"], source=random.Random(1))
    decided = [follower.suggest_categorical(name, options) for name, options in OFFERED.items()]
    assert decided[0] == 1 and decided[1] in (1, 3) and decided[2] == "x"
    config = random_config(SETTING, History(), random.Random(0))
    parent = Known(0, config, SPACE.params(config), 1.0)
    config, params = mutate(SETTING, parent, random.Random(0))
    assert SPACE.params(config) == params
    children = [mutate(SETTING, parent, random.Random(seed))[1] for seed in range(30)]
    changed = [
        sum(child[name] != value for name, value in parent.params.items() if name in child) for child in children
    ]
    assert set(changed) <= {0, 1, 2} and changed.count(1) > 10


OFFERED: dict[str, Sequence[Any]] = {"a": [1, 2], "b": [1, 2, 3], "c": ["x", "y"]}


@pytest.mark.parametrize("name", ["tpe", "evolution", "surrogate"])
def test_what_learns_begins_with_the_shortcut(name: str) -> None:
    """Without one a short distillation says how far a decoder is from linear decoding, not how good it gets."""
    study = make_study(name)
    for _ in range(4):
        assert SPACE.suggest(study.ask(), SPEC).shortcut == get_block("linear_shortcut").Config()


def test_a_shortcut_that_is_over_the_budget_is_no_condition() -> None:
    class NoShortcuts:
        def share(self, config: DecoderConfig) -> float:
            return 0.0 if self.fits(config) else 2.0

        def fits(self, config: DecoderConfig) -> bool:
            return config.shortcut is None

    config = first_config(Setting(SPACE, SPEC, NoShortcuts()), History(), random.Random(0))
    assert config.shortcut is None


def test_thrift_makes_numbers_small_and_nothing_else() -> None:
    plain, thrifty = (Thrifty(random.Random(0), thrift) for thrift in (0, 4))
    widths = [16, 32, 64, 128]

    def mean(chooser: Thrifty) -> float:
        return fmean(chooser.suggest_categorical("width", widths) for _ in range(200))

    assert mean(thrifty) < 0.6 * mean(plain)
    assert {thrifty.suggest_categorical("has_middle", [False, True]) for _ in range(50)} == {False, True}


def test_the_program_says_why_it_has_no_solution() -> None:
    study = make_study("program")
    run(study, 4)
    assert study.trials[0].user_attrs["program"] == "the device does not predict latency by parts"
    device = open_device("iphone-16-pro")
    budget = budget_on(device, Workload(64, 64, 5), 1.0)
    assert isinstance(device, PredictedDevice) and isinstance(budget, PredictedBudget)
    study.sampler = make_sampler("program", 0, SPACE, SPEC, Bounded(budget.by_parts, 100.0))
    trial = study.ask()
    trial = study.ask() if trial.number % 3 else trial
    while trial.number % 3:
        trial = study.ask()
    SPACE.suggest(trial, SPEC)
    note_origin(study.sampler, trial)
    assert trial.user_attrs["program"].endswith("of 12 scored decoders that a regression needs")


class Bounded(PredictedBudget):
    """Latency by its bound, for which nothing is converted."""

    def fits(self, config: DecoderConfig) -> bool:
        return self.share(config) <= 1


def test_an_unknown_proposer_is_named() -> None:
    with pytest.raises(UserError, match="unknown proposer 'evolutoin': did you mean 'evolution'"):
        make_sampler("evolutoin", 0, SPACE, SPEC)
    assert isinstance(make_sampler("tpe", 0, SPACE, SPEC), ProposalSampler)
    with pytest.raises(UserError, match="above 0"):
        budget_on(open_device("iphone-16-pro"), Workload(64, 64, 5), 0.0)
