"""Proposals by a model of the score: the decoder within the budget that promises the largest improvement."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log, pi, sqrt

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from blocks.registry import Option
from nas.proposals.choosers import Follower, Thrifty
from nas.proposals.evolution import mutate
from nas.proposals.features import Described, Floats, describe
from nas.proposals.gaussian_process import GaussianProcess
from nas.proposals.history import History, Known
from nas.proposals.proposer import Proposal, Setting, first_config, random_config
from search_spaces import DecoderConfig

_MOST_ASKED = 40
"""Candidates about which the budget is asked for one proposal."""
_FASTER = 1.25
"""How much faster than the fastest known decoder a proposal may be asked to be."""
_WORTHLESS = 3.0
"""Decibels behind the best from which on nobody wants a decoder for its speed: nothing faster is looked for then."""


@dataclass(frozen=True)
class _Candidate:
    """A decoder that might be proposed."""

    config: DecoderConfig
    """The architecture."""
    described: Described
    """Its features."""
    parent: int | None
    """Number of the trial that it was made from; None if it is a random walk."""


class Surrogate:
    """A Gaussian process over architectures, and expected improvement over the best score ("EGO", Jones 1998).

    Candidates are children of the best decoders, grandchildren, and random walks. What they promise is weighed with
    how likely they are within the budget, which a regression on the ones that were asked about says; the budget itself
    is asked from the most promising on, until one fits.

    A search is to end with a front, so every other proposal sets itself a smaller budget: it looks for decoders that
    take no more than some share of it, and are better than the best of those (the constraint method for several
    objectives, Haimes 1971, with a limit that is drawn anew each time). How fast it may ask for is up to the fastest
    decoder that is not far behind the best.

    Args:
        setting: the space and the budget.
        first: decoders with a score up to which proposals are random.
        children: candidates that descend from the best decoders.
        strangers: candidates that are random walks.
        parents: best decoders that have children.
        faster: how many of the proposals set themselves a smaller budget, as a share.
    """

    name = "surrogate"

    def __init__(
        self,
        setting: Setting,
        first: int = 8,
        children: int = 128,
        strangers: int = 32,
        parents: int = 6,
        faster: float = 1 / 2,
    ) -> None:
        self._setting = setting
        self._first = first
        self._children = children
        self._strangers = strangers
        self._parents = parents
        self._faster = faster
        self._shares: dict[str, tuple[Described, float]] = {}

    def propose(self, study: optuna.Study, trial: FrozenTrial, history: History, source: random.Random) -> Proposal:
        """The most promising candidate; a random walk while too few decoders have a score, or where none fits."""
        if len(history.known) < self._first:
            return Proposal(first_config(self._setting, history, source), {"proposer": "random"})
        known = history.known
        described = [describe(each.config, each.params) for each in known]
        model = GaussianProcess(described, [each.score for each in known])
        limit, rivals = self._limit(known, described, source)
        candidates = self._candidates(history, sorted((known[index] for index in rivals), key=_rank), source)
        mean, deviation = model.predict([candidate.described for candidate in candidates])
        # A noisy best would ask too much of the others: the model's own idea of it counts.
        best = float(model.predict([described[index] for index in rivals])[0].max())
        promise = expected_improvement(mean, deviation, best) * self._chances(limit, candidates)
        for index in np.argsort(-promise)[:_MOST_ASKED]:
            chosen = candidates[index]
            if self._fits(chosen, limit):
                notes = {
                    "proposer": self.name,
                    "expected_score": round(float(mean[index]), 3),
                    "share": round(limit, 3),
                }
                return Proposal(chosen.config, notes | ({} if chosen.parent is None else {"parent": chosen.parent}))
        return Proposal(random_config(self._setting, history, source), {"proposer": "random"})

    def _limit(
        self, known: Sequence[Known], described: Sequence[Described], source: random.Random
    ) -> tuple[float, list[int]]:
        """The share of the budget that this proposal may take, and which of the known decoders take no more."""
        budget = self._setting.budget
        if budget is None:
            return 1.0, list(range(len(known)))
        for each, features in zip(known, described, strict=True):
            if each.config.digest() not in self._shares:
                self._shares[each.config.digest()] = (features, log(budget.share(each.config)))
        if source.random() >= self._faster:
            return 1.0, list(range(len(known)))
        shares = [exp(self._shares[each.config.digest()][1]) for each in known]
        # Any share, evenly by its logarithm, also one that nothing known takes: its best rival is then the fastest.
        best = max(each.score for each in known)
        fastest = min(share for each, share in zip(known, shares, strict=True) if each.score > best - _WORTHLESS)
        limit = exp(source.uniform(log(fastest / _FASTER), 0.0))
        return limit, [index for index, share in enumerate(shares) if share <= max(limit, fastest)]

    def _candidates(self, history: History, ranked: Sequence[Known], source: random.Random) -> list[_Candidate]:
        """New decoders, each once; the first of the ranked ones have children."""
        found: dict[str, _Candidate] = {}
        parents = ranked[: self._parents]

        def add(config: DecoderConfig, params: dict[str, Option], parent: int | None) -> None:
            if (digest := config.digest()) not in history.proposed and digest not in found:
                found[digest] = _Candidate(config, describe(config, params), parent)

        for _ in range(self._children):
            parent = source.choice(parents)
            child, params = mutate(self._setting, parent, source)
            if source.random() < 1 / 2:
                child, params = mutate(self._setting, Known(parent.number, child, params, parent.score), source)
            add(child, params, parent.number)
        for index in range(self._strangers):
            stranger = Follower({}, Thrifty(source, index % 3))
            add(self._setting.space.suggest(stranger, self._setting.latents), stranger.used, None)
        return list(found.values())

    def _fits(self, candidate: _Candidate, limit: float) -> bool:
        """Whether a candidate is within the budget and may be within a share of it; what it takes is remembered.

        What it takes at least has to be within the share: to know more its parts would have to be converted, for every
        candidate that is asked about.
        """
        budget = self._setting.budget
        if budget is None:
            return True
        fits = budget.share(candidate.config) <= limit and budget.fits(candidate.config)
        # Asked again: what its parts cost may be exact by now, and teaches more than a bound.
        share = budget.share(candidate.config)
        if isfinite(share):
            self._shares[candidate.config.digest()] = (candidate.described, log(share))
        return fits

    def _chances(self, limit: float, candidates: Sequence[_Candidate]) -> Floats:
        """How likely each candidate is within a share of the budget, `(n,)`: by a regression of shares on sizes."""
        if self._setting.budget is None:
            return np.ones(len(candidates))
        sizes = np.array([described.sizes for described, _ in self._shares.values()])
        shares = np.array([share for _, share in self._shares.values()])
        centre, spread = sizes.mean(axis=0), sizes.std(axis=0) + 1e-6
        table = (sizes - centre) / spread
        gram = table.T @ table + np.eye(table.shape[1])
        coefficients = np.linalg.solve(gram, table.T @ (shares - shares.mean()))
        error = float(np.std(shares - shares.mean() - table @ coefficients)) + 0.05
        wanted = (np.array([candidate.described.sizes for candidate in candidates]) - centre) / spread
        chances: Floats = ndtr((log(limit) - shares.mean() - wanted @ coefficients) / error)
        return chances


def _rank(known: Known) -> tuple[float, int]:
    return -known.score, known.number


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Expected amount by which a normally distributed number exceeds `best`, 0 where it does not; `(n,)`."""
    ahead = (mean - best) / deviation
    density = np.exp(-(ahead**2) / 2) / sqrt(2 * pi)
    gain: Floats = deviation * (ahead * ndtr(ahead) + density)
    return gain
