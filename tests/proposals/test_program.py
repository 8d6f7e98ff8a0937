"""The integer program: the best paths are those of trying all, and what a graph sums is what a decoder costs."""

import random
from dataclasses import replace
from itertools import pairwise, product
from math import log2

import pytest

from nas.latency import Workload
from nas.latency.devices import PredictedDevice, open_device
from nas.proposals.additive_score import AdditiveScore, stage_choices
from nas.proposals.budget import PredictedBudget
from nas.proposals.history import History, Known
from nas.proposals.integer_program import best_paths
from nas.proposals.program import Program
from nas.proposals.proposer import Setting, random_config
from nas.proposals.stage_graph import END, START, Edge, StageGraph
from search_spaces import SEARCH_SPACES, DecoderConfig
from tests.support.small_decoders import SPECS

SPEC = SPECS["16ch-4x8x8-leading"]
SPACE = SEARCH_SPACES["memory2d"]


def layered(widths: int, layers: int, seed: int) -> list[Edge]:
    """A graph with every edge between neighbouring layers."""
    numbers = random.Random(seed)
    nodes = [[START], *[[("made", layer, width, "video") for width in range(widths)] for layer in range(layers)], [END]]
    return [
        Edge(one, other, numbers.uniform(1, 5), numbers.uniform(-1, 1), ((f"{layer} width", str(other[-2:])),))
        for layer, (before, after) in enumerate(pairwise(nodes))
        for one, other in product(before, after)
    ]


def every_path(edges: list[Edge]) -> list[list[Edge]]:
    paths = [[edge] for edge in edges if edge.source == START]
    while any(path[-1].target != END for path in paths):
        paths = [[*path, edge] for path in paths for edge in edges if edge.source == path[-1].target]
    return paths


def gain(path: list[Edge]) -> float:
    return sum(edge.gain for edge in path)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_paths_within_the_budget_are_found(seed: int) -> None:
    edges = layered(widths=3, layers=4, seed=seed)
    fitting = [path for path in every_path(edges) if sum(edge.milliseconds for edge in path) <= 13]
    first, *others = best_paths(edges, 13, count=3)
    assert gain(first) == pytest.approx(max(map(gain, fitting)))

    def distance(one: list[Edge], other: list[Edge]) -> int:
        return sum(a.decisions != b.decisions for a, b in zip(one, other, strict=True))

    second = max((path for path in fitting if distance(path, first) >= 2), key=gain)
    assert gain(others[0]) == pytest.approx(gain(second))
    assert all(distance(one, other) >= 2 for one in (first, *others) for other in (first, *others) if one is not other)


def test_nothing_is_found_below_every_path() -> None:
    assert best_paths(layered(2, 2, 0), 0.5, count=2) == []
    assert best_paths([], 1.0, count=1) == []


class Bounded(PredictedBudget):
    """Latency by its bound, for which nothing is converted."""

    def fits(self, config: DecoderConfig) -> bool:
        return self.share(config) <= 1


def bounded(limit_ms: float) -> Bounded:
    device = open_device("iphone-16-pro")
    assert isinstance(device, PredictedDevice)
    return Bounded(device.by_parts(Workload(64, 64, 5)), limit_ms)


def wide_is_good(config: DecoderConfig) -> float:
    return sum(log2(choice.width) + 0.2 * choice.depth for choice in stage_choices(config))


def known_decoders(setting: Setting, count: int) -> History:
    history = History()
    for number in range(count):
        config = random_config(setting, history, random.Random(number))
        history.known.append(Known(number, config, dict(SPACE.params(config)), wide_is_good(config)))
        history.proposed.add(config.digest())
    return history


def test_solutions_are_new_within_the_budget_and_better_by_the_regression() -> None:
    setting = Setting(SPACE, SPEC, bounded(0.05))
    history = known_decoders(setting, 16)
    solutions = Program(setting).solve(history)
    assert solutions
    best = max(known.score for known in history.known)
    for parent, config, _ in solutions:
        assert setting.is_wanted(config, history) and SPACE.params(config)
        assert parent in {known.number for known in history.best(3)}
    assert max(wide_is_good(config) for _, config, _ in solutions) > best - 0.5


def test_a_path_costs_what_its_decoder_costs() -> None:
    setting = Setting(SPACE, SPEC, bounded(0.05))
    history = known_decoders(setting, 12)
    score = AdditiveScore([each.config for each in history.known], [each.score for each in history.known])
    budget = setting.budget
    assert isinstance(budget, PredictedBudget)
    program = Program(setting)
    for base in history.best(3):
        graph = StageGraph(setting, base.params, program._options(base, history, score), score, budget.by_parts)
        edges = graph.edges()
        for limit in (0.02, 0.05):
            for path in best_paths(edges, limit, count=2):
                config = graph.config({name: value for edge in path for name, value in edge.params.items()})
                total = sum(edge.milliseconds for edge in path)
                assert budget.by_parts.at_least(config) == pytest.approx(total, rel=1e-9)


def test_a_sum_over_choices_is_learnt() -> None:
    history = known_decoders(Setting(SPACE, SPEC, None), 40)
    train, held_out = history.known[:30], history.known[30:]
    score = AdditiveScore([each.config for each in train], [each.score for each in train])
    errors = [abs(score.predict(each.config) - each.score) for each in held_out]
    middle = sum(each.score for each in train) / len(train)
    assert sum(errors) < 0.7 * sum(abs(each.score - middle) for each in held_out)


def test_choices_of_stages_are_those_of_the_space() -> None:
    config = random_config(Setting(SPACE, SPEC, None), History(), random.Random(3))
    params = SPACE.params(config)
    for index, choice in enumerate(stage_choices(config)):
        assert choice.depth == params[f"stage{index}.depth"]
        assert choice.width in [value for name, value in params.items() if name.startswith(f"stage{index}.width")]
    deeper = replace(config.stages[0], depth=config.stages[0].depth + 1)
    changed = stage_choices(replace(config, stages=(deeper, *config.stages[1:])))
    assert changed[0].depth == stage_choices(config)[0].depth + 1
