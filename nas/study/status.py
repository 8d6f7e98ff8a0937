"""How a search is doing, seen from another terminal: the run is read, never locked and never written."""

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from nas.latency.budget import format_ms
from nas.machine.locks import is_held
from nas.study.outcomes import Outcome, best_outcomes, finished_trials, read_outcomes
from nas.study.rows import mark, print_front, score_of
from nas.study.run import Run
from nas.study.sharing import study_to_read
from nas.study.study import find_study
from nas.terminal.console import format_seconds, say
from search_spaces import DecoderConfig

if TYPE_CHECKING:
    import optuna
    from rich.console import Console


def print_status(console: "Console", run: Run) -> None:
    """Settings in short, whether somebody works on it, counts, what runs, the best, the front.

    Raises:
        UserError: the database is damaged, or holds something else.
    """
    settings, worked_on = run.settings, bool(run.storage) or is_held(run.folder)
    say(console, "run", f"{run.folder}, {_who_works(run, worked_on)}")
    say(console, "search", f"{settings.teacher}, {settings.space}, {settings.steps} steps, seed {settings.seed}")
    where = f"at {settings.workload.describe()} for {' and '.join(settings.devices)}"
    say(console, "budget", f"{settings.describe_constraints()} {where}")
    if not run.storage and find_study(run.storage_url) is None:
        soon = "targets come first" if worked_on else "the same python -m nas.search makes one"
        say(console, "trials", f"there is no study yet: {soon}")
        return
    with study_to_read(run) as study:
        _print_trials(console, run, study, worked_on)


def _who_works(run: Run, worked_on: bool) -> str:
    if run.storage:
        return f"its study '{run.study}' is shared on {run.storage}"
    return "somebody works on it now" if worked_on else "nobody works on it"


def _print_trials(console: "Console", run: Run, study: "optuna.Study", worked_on: bool) -> None:
    settings = run.settings
    found = read_outcomes(study)
    say(console, "trials", _counts(found))
    _print_running(console, study, settings.steps, worked_on)
    if ended := [trial.datetime_complete for trial in finished_trials(study) if trial.datetime_complete]:
        seconds = max(0.0, (datetime.now() - max(ended)).total_seconds())
        say(console, "last", f"outcome {format_seconds(seconds)} ago")
    if best := best_outcomes(found):
        latency = f"{format_ms(best[0].latency.ms_per_frame)} ms/frame{mark(best[0])}"
        say(console, "best", f"#{best[0].number} {best[0].config.summary()}: {latency}, {score_of(best[0]):.2f} dB")
        print_front(console, found, settings.constraints[0].limit)


def _counts(found: list[Outcome]) -> str:
    """How many proposals ended in which way: "9 scored, 3 pruned, 41 over budget"."""
    counted = Counter(outcome.status for outcome in found)
    taken = sum(bool(outcome.origin) for outcome in found)
    words = [f"{count} {status}" for status, count in counted.most_common()]
    return (", ".join(words) or "none has an outcome yet") + (f"; {taken} of them from earlier runs" if taken else "")


def _print_running(console: "Console", study: "optuna.Study", steps: int, worked_on: bool) -> None:
    """What is trained at the moment; of a search that was killed, what it was training."""
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            cut_off = "" if worked_on else ", cut off: the same python -m nas.search goes on with it"
            say(console, "running", f"{_written(trial)}, {trial.last_step or 0} of {steps} steps{cut_off}")
    if waiting := sum(trial.state == TrialState.WAITING for trial in trials):
        say(console, "queued", f"{waiting} to come first, of published designs and trials that were cut off")


def _written(trial: FrozenTrial) -> str:
    config = trial.user_attrs.get("config")
    return f"#{trial.number} {DecoderConfig.from_dict(config).summary() if config else 'is being looked at'}"
