"""Proposals by an integer program: the best decoders around a good one, if quality were a sum over stages.

Latency is a sum over parts, and if the score is near a sum over choices (a regression on what was trained says what
each adds), the best decoder within the budget is the longest path of a graph. Between its solutions a study goes on by
evolution: the regression learns only from decoders that it would not have chosen itself.
"""

import random
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from blocks.registry import Option
from nas.proposals.additive_score import AdditiveScore
from nas.proposals.budget import PredictedBudget
from nas.proposals.choosers import Follower
from nas.proposals.evolution import Evolution
from nas.proposals.history import History, Known
from nas.proposals.integer_program import best_paths
from nas.proposals.proposer import Proposal, Setting
from nas.proposals.stage_graph import Edge, Options, StageGraph
from search_spaces import DecoderConfig
from search_spaces.choices import describe_part
from search_spaces.stage_groups import group_stages

FEWEST_SCORED = 12
"""Decoders with a score that the regression needs."""
_ROUNDS = 4
"""Solutions of which the latency is only bounded at first: they are predicted, and it is solved again."""


class Program:
    """Solutions of the integer program at every third trial, children by evolution at the others.

    Args:
        setting: the space and the budget.
        period: trials from one solution to the next.
        solutions: best paths of one program, every two at least two decisions apart.
    """

    name = "program"

    def __init__(self, setting: Setting, period: int = 3, solutions: int = 3) -> None:
        self._setting = setting
        self._period = period
        self._solutions = solutions
        self._evolution = Evolution(setting)
        self._waiting: list[tuple[int, DecoderConfig, float]] = []

    def propose(self, study: optuna.Study, trial: FrozenTrial, history: History, source: random.Random) -> Proposal:
        """A solution or a child. Where there is no solution, the note `program` says why."""
        if trial.number % self._period:
            return self._evolution.propose(study, trial, history, source)
        reason = self._reason(history)
        if not reason:
            self._waiting = [each for each in self._waiting if each[1].digest() not in history.proposed]
            if not self._waiting:
                self._waiting = self.solve(history)
            if self._waiting:
                parent, config, expected = self._waiting.pop(0)
                return Proposal(config, {"proposer": self.name, "parent": parent, "expected_score": round(expected, 3)})
            reason = "no solution within the budget is new"
        proposal = self._evolution.propose(study, trial, history, source)
        return Proposal(proposal.config, proposal.notes | {"program": reason})

    def solve(self, history: History) -> list[tuple[int, DecoderConfig, float]]:
        """Solutions around the best decoders: number of that trial, the decoder, its score by the regression in dB.

        All of them are new and within the budget, best first.
        """
        budget = self._setting.budget
        assert isinstance(budget, PredictedBudget)
        score = AdditiveScore([each.config for each in history.known], [each.score for each in history.known])
        limit = budget.limit_ms
        for base in history.best(3):
            graph = StageGraph(self._setting, base.params, self._options(base, history, score), score, budget.by_parts)
            found: dict[str, DecoderConfig] = {}
            asked: set[str] = set()
            for _ in range(_ROUNDS):
                solved = [graph.config(_params(path)) for path in best_paths(graph.edges(), limit, self._solutions)]
                # Whether one fits or not, what its parts cost is exact in the next round.
                found |= {each.digest(): each for each in solved if self._setting.is_wanted(each, history)}
                if len(found) >= self._solutions or asked >= (digests := {each.digest() for each in solved}):
                    break
                asked |= digests
            if found:
                scored = [(base.number, config, score.predict(config)) for config in found.values()]
                return sorted(scored, key=lambda each: -each[2])[: self._solutions]
        return []

    def _reason(self, history: History) -> str:
        """Why there can be no solution; empty if there can."""
        if not isinstance(self._setting.budget, PredictedBudget):
            return "the device does not predict latency by parts"
        if len(history.known) < FEWEST_SCORED:
            return f"{len(history.known)} of {FEWEST_SCORED} scored decoders that a regression needs"
        return ""

    def _options(self, base: Known, history: History, score: AdditiveScore) -> list[Options]:
        """For each resolution what the best decoders have there, and sizes around theirs."""
        offered = Follower(base.params, _Refusing())
        self._setting.space.suggest(offered, self._setting.latents)
        best = [base, *(each for each in history.best(8) if _shape(each.config) == _shape(base.config))]
        return [self._options_of(stage, best, offered.offered) for stage in range(_shape(base.config))]

    def _options_of(self, stage: int, best: Sequence[Known], offered: dict[str, list[Option]]) -> Options:
        name = next((each for each in offered if each.startswith(f"stage{stage}.width")), "")
        groups = [group_stages(each.config.stages)[stage] for each in best]
        mains = [group[0] if stage == 0 else group[-1] for group in groups]
        blocks = {str(main.block): describe_part(f"stage{stage}.block", main.block, f"stage{stage}") for main in mains}
        upsamplers = {
            str(main.upsampler): describe_part(f"stage{stage}.upsampler", main.upsampler, f"stage{stage}")
            for group in groups
            for main in group
            if main.upsampler is not None
        }
        depths = _around([main.depth for main in mains], offered.get(f"stage{stage}.depth", []))
        return Options(
            widths=_around([main.width for main in mains], offered.get(name, [])),
            depths=tuple(depth for depth in depths if depth > 0) or (1,),
            blocks=tuple(list(blocks.values())[:4]),
            upsamplers=tuple(list(upsamplers.values())[:3]),
        )


def _params(path: Sequence[Edge]) -> dict[str, Option]:
    """The choices of all edges."""
    return {name: value for edge in path for name, value in edge.params.items()}


class _Refusing:
    """Is never asked: a decoder's own choices are complete."""

    def suggest_categorical(self, name: str, choices: Sequence[Option], /) -> Option:
        """ValueError."""
        raise ValueError(f"{name} was not decided")


def _shape(config: DecoderConfig) -> int:
    return len(group_stages(config.stages))


def _around(used: Sequence[int], offered: Sequence[Option]) -> tuple[int, ...]:
    """Sizes that are offered from one below the smallest used to one above the largest."""
    sizes = sorted({int(size) for size in offered} | set(used[:1]))
    places = [sizes.index(size) for size in used if size in sizes]
    return tuple(sizes[max(0, min(places) - 1) : max(places) + 2])
