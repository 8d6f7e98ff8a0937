"""Compare the proposers on an invented score: what they find within a budget, trial by trial, over several seeds.

    python -m scripts.compare_proposers --budgets 30 4.7 --seeds 5 --trials 60

Decoders are those of the space `hybrid`, and their latency is the bound below the one that is predicted for the default
device, for which nothing has to be converted. The score is invented: sizes, a weight for every choice and for pairs of
choices within a stage, drawn anew for every seed, and noise. So the comparison says how proposers search such a space;
which of them finds better decoders only training says.
"""

import argparse
import hashlib
import random
import statistics
import time
from itertools import combinations

import optuna
from optuna.trial import TrialState

from nas.latency import DEFAULT_DEVICE, Workload, open_device
from nas.latency.devices import PredictedDevice
from nas.proposals.budget import PredictedBudget
from nas.proposals.features import describe
from nas.proposals.names import PROPOSERS
from nas.proposals.registry import make_sampler
from nas.proposals.sampler import note_origin
from search_spaces import SEARCH_SPACES, DecoderConfig, LatentSpec

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
SPACE = SEARCH_SPACES["hybrid"]
WORKLOAD = Workload(512, 512, 17)
NOISE_DB = 0.1
"""Standard deviation of the noise that a proposer sees on a score."""


class BoundedBudget(PredictedBudget):
    """Latency by its bound, for which nothing is converted."""

    def fits(self, config: DecoderConfig) -> bool:
        """Whether the bound is within the budget."""
        return self.share(config) <= 1


def invented_score(config: DecoderConfig, seed: int) -> float:
    """Score in dB: 0.35 dB for each doubling of work and of parameters, up to 0.35 for a choice, 0.15 for a pair."""
    described = describe(config, SPACE.params(config))
    choices = sorted(each for each in described.choices if ".width" not in each and ".depth" not in each)
    single = sum(_weight(seed, each) for each in choices)
    within = (pair for pair in combinations(choices, 2) if _stage(pair[0]) == _stage(pair[1]))
    pairs = sum(_weight(seed, *pair) for pair in within)
    return 18 + 0.175 * float(described.sizes[-2:].sum()) + 0.35 * single + 0.15 * pairs


def _stage(choice: str) -> str:
    return choice.split("=")[0].split(".")[0]


def _weight(*about: object) -> float:
    """A number from -1 to 1, always the same for the same arguments."""
    return int(hashlib.sha256(repr(about).encode()).hexdigest()[:8], 16) / 2**31 - 1


def run(name: str, budget: BoundedBudget, seed: int, trials: int) -> tuple[list[float], float]:
    """The true score of the best one seen after each trial, and the seconds of one proposal."""
    study = optuna.create_study(direction="maximize", sampler=make_sampler(name, seed, SPACE, LATENTS, budget))
    noise, seconds = random.Random(seed), 0.0
    best: list[float] = []
    for _ in range(trials):
        started = time.process_time()
        trial = study.ask()
        config = SPACE.suggest(trial, LATENTS)
        seconds += time.process_time() - started
        note_origin(study.sampler, trial)
        trial.set_user_attr("config", config.to_dict())
        trial.set_user_attr("digest", config.digest())
        share = budget.share(config)
        trial.set_constraint("latency", share - 1)
        score = invented_score(config, seed) if share <= 1 else float("-inf")
        best.append(max([score, *best[-1:]]))
        if share <= 1:
            study.tell(trial, score + noise.gauss(0, NOISE_DB))
        else:
            study.tell(trial, state=TrialState.PRUNED)
    return best, seconds / trials


def main() -> None:
    """Print a line for every run, then a table for every budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=float, nargs="+", default=[30.0, 4.7], help="milliseconds per frame")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--proposers", nargs="+", default=PROPOSERS, choices=PROPOSERS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    device = open_device(DEFAULT_DEVICE)
    assert isinstance(device, PredictedDevice)
    for limit in arguments.budgets:
        budget = BoundedBudget(device.by_parts(WORKLOAD), limit)
        found: dict[str, list[list[float]]] = {name: [] for name in arguments.proposers}
        for seed in range(arguments.seeds):
            for name in arguments.proposers:
                best, seconds = run(name, budget, seed, arguments.trials)
                found[name].append(best)
                line = f"{limit:g} ms, seed {seed}, {name}: {best[-1]:.2f} dB, {seconds:.2f} s of CPU for a proposal"
                print(line, flush=True)
        print_table(limit, found, arguments.trials)


def print_table(limit: float, found: dict[str, list[list[float]]], trials: int) -> None:
    """Mean and standard deviation of the best score over the seeds, and of its lead over chance, if that was run."""
    at = sorted({trials // 3, 2 * trials // 3, trials})
    print(f"| {limit:g} ms per frame | {' | '.join(f'after {count}' for count in at)} | ahead of random |")
    print("|---|" + "---|" * (len(at) + 1))
    for name, runs in found.items():
        cells = [_spread([best[count - 1] for best in runs]) for count in at]
        chance = found.get("random", runs)
        ahead = _spread([mine[-1] - theirs[-1] for mine, theirs in zip(runs, chance, strict=True)])
        print(f"| {name} | {' | '.join(cells)} | {ahead} |", flush=True)


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} +- {deviation:.2f}"


if __name__ == "__main__":
    main()
