"""Trials of an earlier run: their scores count for another budget, device or size; what they cost is found out anew.

A score depends on the teacher, the clips, the recipe, the steps and the seed of a short distillation, and on what the
parts of the space do. Where all of these are the same, it is the score that this search would find.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from blocks import NotBuildableError
from nas.latency.record import MeasurementFailedError
from nas.study.candidate import Candidate, MakeCandidate
from nas.study.constraints import Constraint, all_met, excess
from nas.study.contents import Contents, changes, in_one_line
from nas.study.outcomes import Outcome, Status, finished_trials, outcome_of, status_of
from nas.study.run import Run, load_run
from nas.study.settings import RunSettings, difference
from nas.study.sharing import study_to_read
from nas.study.trial import known_costs
from nas.terminal.errors import UserError
from search_spaces import DecoderConfig

_SAME_SETTINGS = ("teacher", "space", "steps", "seed")
"""Settings that a score depends on; weights and clips are compared by content."""
_SAME_CONTENTS = ("space", "part", "weights of teacher", "clip", "recipe")
"""Kinds of contents that a score depends on."""


def find_earlier_run(folder: Path | None, into: Path | None, settings: RunSettings, contents: Contents) -> Run | None:
    """The run whose trials are to count, see `check_comparable`; None if none was asked for.

    Raises:
        UserError: it is no run, it is the one that is searched, or its scores do not count.
    """
    if folder is None:
        return None
    old = load_run(folder)
    if into is not None and into.exists() and folder.samefile(into):
        raise UserError(f"--from-run and --run are both {folder}: name an earlier run")
    check_comparable(old, settings, contents)
    with study_to_read(old):
        return old


def check_comparable(old: Run, settings: RunSettings, contents: Contents) -> None:
    """Refuse a run whose scores mean something else than those of a search with these settings and contents.

    Raises:
        UserError: they do; the message says why.
    """
    shared = {name: getattr(settings, name) for name in _SAME_SETTINGS}
    if differing := difference(old.settings, replace(old.settings, **shared)):
        raise UserError(f"the scores of {old.folder} do not count here: it was made with {differing}")
    if changed := changes(old.contents, {kind: contents.get(kind, {}) for kind in _SAME_CONTENTS}):
        raise UserError(
            f"the scores of {old.folder} do not count here: it was made with something else ({in_one_line(changed)})"
        )


def import_trials(
    study: optuna.Study,
    old: Run,
    constraints: Sequence[Constraint],
    make_candidate: MakeCandidate,
    on_outcome: Callable[[Outcome], None],
    on_left_out: Callable[[DecoderConfig, str], None],
) -> None:
    """Add the trained candidates of an earlier run to a study; those that it knows already are left alone.

    Each is one finished trial from the moment it is in the database. `from` in its attributes names run and number.

    Args:
        study: where they go.
        old: the earlier run, see `check_comparable`; it is only read.
        constraints: of this search.
        make_candidate: makes a candidate of an architecture; asked what it costs.
        on_outcome: told what became of each.
        on_left_out: told which ones a device cannot run, or cannot be built here, and why.

    Raises:
        UserError: the earlier run has no study, or a damaged one.
    """
    known = {trial.user_attrs["digest"] for trial in finished_trials(study)}
    with study_to_read(old) as earlier:
        trials = list(_trained(earlier))
    for trial in trials:
        if trial.user_attrs["digest"] in known:
            continue
        candidate = make_candidate(DecoderConfig.from_dict(trial.user_attrs["config"]))
        try:
            taken = _taken_over(study, old, trial, candidate, constraints)
        except (MeasurementFailedError, NotBuildableError) as error:
            on_left_out(candidate.config, str(error))
            continue
        study.add_trial(taken)
        known.add(trial.user_attrs["digest"])
        on_outcome(outcome_of(finished_trials(study)[-1]))


def _trained(study: optuna.Study) -> Iterator[FrozenTrial]:
    """Trials with a score, those included that were themselves taken over and are over that budget."""
    for trial in finished_trials(study):
        if status_of(trial) in ("scored", "pruned", "over budget") and trial.user_attrs["score"] is not None:
            yield trial


def _taken_over(
    study: optuna.Study, old: Run, trial: FrozenTrial, candidate: Candidate, constraints: Sequence[Constraint]
) -> FrozenTrial:
    """The trial as it is in this study."""
    costs = known_costs(study, candidate)
    values = costs.values()
    status: Status
    whole = max(trial.intermediate_values, default=0) >= old.settings.steps or status_of(trial) == "scored"
    status, detail = ("scored" if whole else "pruned"), ""
    if not all_met(constraints, values):
        status, detail = "over budget", excess(constraints, values)
    elif problem := candidate.problem:
        status, detail = "not exportable", problem
    score: float = trial.user_attrs["score"]
    attributes = {
        "config": candidate.config.to_dict(),
        "digest": candidate.config.digest(),
        "from": {"run": str(old.folder), "number": trial.number},
        "status": status,
        "score": score,
        "detail": detail,
        **({"preset": trial.user_attrs["preset"]} if "preset" in trial.user_attrs else {}),
        **costs.to_dict(),
    }
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if status == "scored" else TrialState.PRUNED,
        value=score if status == "scored" else None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=attributes,
        intermediate_values=trial.intermediate_values,
        constraints={each.name: each.violation(values[each.name]) for each in constraints},
    )
