"""Proposals at random: every choice as likely as the others, drawn again until the decoder is within the budget."""

import random

import optuna
from optuna.trial import FrozenTrial

from nas.proposals.history import History
from nas.proposals.proposer import Proposal, Setting, random_config


class RandomWalk:
    """What everything else is compared with.

    Args:
        setting: the space and the budget.
    """

    name = "random"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def propose(self, study: optuna.Study, trial: FrozenTrial, history: History, source: random.Random) -> Proposal:
        """A random walk. Only after 100 draws over the budget small numbers become likelier."""
        return Proposal(random_config(self._setting, history, source, patience=100), {"proposer": self.name})
