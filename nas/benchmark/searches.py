"""Searches against each other at equal compute: published designs, random proposals, and what a search does by default.

A search is one process of one thread that stops after so much processor time. What it finds best by its own scores is
distilled in full, with several seeds, and judged on clips that chose nothing.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
import torch

from nas.benchmark.curves import CPU
from nas.data.targets import Targets
from nas.distillation import recipes
from nas.distillation.distill import distill, score_student
from nas.distillation.initialise import build
from nas.latency import open_device
from nas.machine.files import disk_errors, read_json, write_json
from nas.study.constraints import all_met
from nas.study.limits import StudyLimits
from nas.study.loop import Events, run_study
from nas.study.outcomes import best_outcomes, read_outcomes
from nas.study.run import Run
from nas.study.settings import RunSettings
from nas.study.short_distillation import ShortDistillation
from nas.study.study import open_study
from nas.workers.pool import InlinePool
from nas.workers.processes import ProcessPool
from search_spaces import SEARCH_SPACES, DecoderConfig, warm_starts

Arm = Literal["published", "random", "default"]
"""What proposes: published designs scaled to the budget, chance, or the search as it is."""
ARMS: tuple[Arm, ...] = ("published", "random", "default")


@dataclass(frozen=True)
class Contest:
    """What every search of a comparison has in common."""

    settings: RunSettings
    """What each search is asked for; the seed is set for each."""
    targets: Targets
    """What decoders are trained, scored and judged on."""
    seconds: float
    """Processor time of a search, in seconds."""
    full_steps: int
    """Length of the full distillations that judge."""
    full_seeds: int
    """Number of full distillations of each decoder."""
    folder: Path
    """Where everything about it is kept."""


@dataclass(frozen=True)
class Search:
    """One search, or the published designs."""

    arm: Arm
    """What proposes."""
    seed: int
    """Seed of the search."""
    contest: Contest
    """What it has in common with the others."""

    @property
    def file(self) -> Path:
        """Where its decoders go."""
        return self.contest.folder / f"{self.arm}-{self.seed}.json"

    def __call__(self) -> None:
        """Search, and write the decoders that will be judged."""
        contest = self.contest
        settings = replace(contest.settings, seed=self.seed)
        run = Run(contest.folder / f"{self.arm}-{self.seed}", settings)
        device = open_device(settings.device)
        short = ShortDistillation(run, contest.targets, device, CPU, recipes.CPU)
        space = SEARCH_SPACES[settings.space]
        latents = contest.targets.spec
        if self.arm == "published":

            def fits(config: DecoderConfig) -> bool:
                return all_met(settings.constraints, short.candidate(config).costs.values())

            found = [(title, config) for title, config in warm_starts(space, latents, fits) if fits(config)]
            self._write([{"title": title, "architecture": config.to_dict()} for title, config in found], {})
            return
        run.folder.mkdir(parents=True, exist_ok=True)
        study = open_study(run.storage_url, self.seed, steps=settings.steps)
        if self.arm == "random":
            study.sampler = optuna.samplers.RandomSampler(self.seed)
            study.set_user_attr("warm_started", True)
        limits = StudyLimits(1_000_000, self.contest.seconds, clock=time.process_time)
        run_study(
            study, space, latents, settings.constraints, limits, short.candidate, InlinePool(), settings.steps, Events()
        )
        outcomes = read_outcomes(study)
        best = best_outcomes(outcomes)[0]
        counts = dict(Counter(str(outcome.status) for outcome in outcomes))
        self._write([{"title": best.config.summary(), "architecture": best.config.to_dict()}], counts)

    def _write(self, decoders: list[dict[str, Any]], counts: dict[str, int]) -> None:
        with disk_errors("cannot write a search of the benchmark"):
            write_json(self.file, {"arm": self.arm, "seed": self.seed, "decoders": decoders, "counts": counts})


@dataclass(frozen=True)
class FullRun:
    """A full distillation of one decoder."""

    architecture: dict[str, Any]
    """The config, JSON primitives."""
    seed: int
    """Seed of first weights and order of data."""
    contest: Contest
    """What it has in common with the others."""

    @property
    def file(self) -> Path:
        """Where its score goes."""
        digest = DecoderConfig.from_dict(self.architecture).digest()
        return self.contest.folder / "full" / f"{digest}-{self.seed}.json"

    def __call__(self) -> None:
        """Distil it, and write its score on unseen clips."""
        settings = recipes.CPU.distillation(self.contest.full_steps, self.seed)
        decoder = build(DecoderConfig.from_dict(self.architecture), self.seed)
        result = distill(decoder, self.contest.targets, settings, device=CPU)
        with torch.inference_mode():
            test = score_student(result.decoder, self.contest.targets.split("test"), 1, CPU)
        with disk_errors("cannot write a distillation of the benchmark"):
            write_json(self.file, {"score_db": result.score, "test_db": test, "seconds": round(result.seconds, 1)})


def hold(contest: Contest, seeds: int, workers: int, progress: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """Search with every arm and seed, distil what was found in full, and return what is known of every decoder."""
    searches = [Search("published", 0, contest)]
    searches += [Search(arm, seed, contest) for seed in range(seeds) for arm in ARMS[1:]]
    with closing(ProcessPool(workers)) as pool:
        _run_missing(pool, searches, lambda done, total: progress(done, 2 * total))
        found = [read_json(search.file) for search in searches]
        runs = {
            run.file: run
            for each in found
            for decoder in each["decoders"]
            for run in (FullRun(decoder["architecture"], seed, contest) for seed in range(contest.full_seeds))
        }
        _run_missing(pool, list(runs.values()), lambda done, total: progress(total + done, 2 * total))
    rows = []
    for each in found:
        for decoder in each["decoders"]:
            full = [read_json(FullRun(decoder["architecture"], n, contest).file) for n in range(contest.full_seeds)]
            rows.append({key: each[key] for key in ("arm", "seed", "counts")} | decoder | {"full": full})
    return rows


def _run_missing(
    pool: ProcessPool, jobs: Sequence[Search] | Sequence[FullRun], progress: Callable[[int, int], None]
) -> None:
    missing = [job for job in jobs if not job.file.exists()]
    progress(len(jobs) - len(missing), len(jobs))
    waiting = [pool.submit(job) for job in missing]
    for done, future in enumerate(as_completed(waiting), start=1):
        future.result()
        progress(len(jobs) - len(missing) + done, len(jobs))
