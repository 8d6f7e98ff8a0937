"""Which choices a score hangs on."""

import warnings
from collections import Counter

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

FEWEST = 10
"""Decoders with a score below which nothing is said."""
_MOST = 12
"""Choices that are shown."""


def importance_of_choices(study: optuna.Study) -> tuple[list[tuple[str, float]], str]:
    """Share of each choice in telling good decoders from others, largest first, or why there is none.

    By PED-ANOVA (arXiv 2304.10255), of the choices that at least half of the decoders with a score have made.
    """
    scored = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(scored) < FEWEST:
        return [], f"{len(scored)} decoders have a score, and it takes {FEWEST}"
    with warnings.catch_warnings():
        # It is experimental, and unsure about choices that few trials have made, which are not shown.
        warnings.simplefilter("ignore")
        try:
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        except ValueError as error:
            return [], str(error)
    made = Counter(name for trial in scored for name in trial.params)
    shown = [(name, share) for name, share in found.items() if share > 0 and made[name] >= len(scored) / 2]
    return sorted(shown, key=lambda each: -each[1])[:_MOST], "" if shown else "no choice tells them apart"
