"""The proposers by name, and the Optuna sampler of each."""

from collections.abc import Callable

from nas.proposals.budget import Budget
from nas.proposals.evolution import Evolution
from nas.proposals.names import PROPOSERS
from nas.proposals.program import Program
from nas.proposals.proposer import Proposer, Setting
from nas.proposals.random_walk import RandomWalk
from nas.proposals.sampler import ProposalSampler
from nas.proposals.surrogate import Surrogate
from nas.proposals.tpe import Tpe
from nas.terminal.errors import unknown_name
from search_spaces import LatentSpec, SearchSpace

_MAKERS: dict[str, Callable[[Setting], Proposer]] = dict(
    zip(PROPOSERS, (RandomWalk, Tpe, Evolution, Surrogate, Program), strict=True)
)


def make_sampler(
    name: str, seed: int, space: SearchSpace, latents: LatentSpec, budget: Budget | None = None
) -> ProposalSampler:
    """The sampler of a proposer, for a study over a space.

    Args:
        name: one of `PROPOSERS`.
        seed: random seed; processes that share a study may have the same.
        space: the space that the study searches.
        latents: the latents that are decoded.
        budget: what is known of the budget before a trial (`nas.proposals.budget.budget_on`); None if nothing is.

    Raises:
        UserError: there is no such proposer (with the nearest name).
    """
    if name not in _MAKERS:
        raise unknown_name("proposer", name, PROPOSERS)
    return ProposalSampler(_MAKERS[name](Setting(space, latents, budget)), space, latents, seed)
