"""Searches against each other at equal compute: published designs, random proposals, and what a search proposes.

A search is one process of one thread that stops after so much processor time. What it finds best by its own scores is
distilled in full, with several seeds, and judged on clips that chose nothing.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.benchmark.curves import CPU
from nas.benchmark.fronts import Scored, scored_decoders
from nas.benchmark.sample import published_designs
from nas.benchmark.side_by_side import run_missing
from nas.data.targets import Targets
from nas.distillation import recipes
from nas.distillation.distill import distill, score_student
from nas.distillation.initialise import build
from nas.distillation.step import DivergedError
from nas.latency import open_device
from nas.machine.batches import DoesNotFitError
from nas.machine.files import disk_errors, read_json, write_json
from nas.proposals.budget import Budget
from nas.study.limits import StudyLimits
from nas.study.loop import Events, run_study
from nas.study.outcomes import best_outcomes, read_outcomes
from nas.study.proposals import ALL_PUBLISHED_QUEUED, budget_of, sampler_of
from nas.study.run import Run
from nas.study.settings import RunSettings
from nas.study.short_distillation import ShortDistillation
from nas.study.study import load_study, open_study
from nas.terminal.errors import UserError
from nas.workers.pool import InlinePool
from nas.workers.processes import ProcessPool
from search_spaces import SEARCH_SPACES, DecoderConfig, LatentSpec

_NO_END = 1_000_000
"""Candidates that no search gets to: its processor time is over before."""
PUBLISHED = "published"
"""The arm of the published designs, scaled to the budget. The others are searches, by the name of their proposer."""
_CHANCE = "random"


@dataclass(frozen=True)
class Contest:
    """What every search of a comparison has in common."""

    settings: RunSettings
    """What each search is asked for; seed and proposer are set for each."""
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

    def full_runs(self, decoder: Mapping[str, Any]) -> "list[FullRun]":
        """The full distillations of what a search has written."""
        return [FullRun(decoder["architecture"], seed, self) for seed in range(self.full_seeds)]


@dataclass(frozen=True)
class Search:
    """One search, or the published designs."""

    arm: str
    """What proposes: `PUBLISHED`, or the name of a proposer."""
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
        run = self._run
        settings = run.settings
        device, targets = open_device(settings.device), self.contest.targets
        short = ShortDistillation(run, targets, device, CPU, recipes.CPU)
        space, budget = SEARCH_SPACES[settings.space], budget_of(short)
        assert budget is not None, "the benchmark is about a device whose latency is predicted"
        if self.arm == PUBLISHED:
            self._write(_helped_designs(targets.spec, budget), {})
            return
        # One that was cut off begins anew: its processor time is all that it gets.
        shutil.rmtree(run.folder, ignore_errors=True)
        run.folder.mkdir(parents=True)
        study = open_study(run.storage_url, sampler_of(short, space, budget), steps=settings.steps)
        if self.arm == _CHANCE:
            study.set_user_attr(ALL_PUBLISHED_QUEUED, True)
        limits = StudyLimits(_NO_END, self.contest.seconds, clock=time.process_time)
        asked = study, space, targets.spec, settings.constraints, limits, short.candidate, InlinePool(), settings.steps
        run_study(*asked, Events(), budget=budget)
        outcomes = read_outcomes(study)
        if not (best := best_outcomes(outcomes)):
            raise UserError(f"a search scored nothing in {self.contest.seconds:g} s: give it more --seconds")
        self._write([(best[0].config.summary(), best[0].config)], Counter(each.status for each in outcomes))

    def history(self) -> list[Scored]:
        """What it has scored, and when; nothing for the published designs."""
        return [] if self.arm == PUBLISHED else scored_decoders(load_study(self._run.storage_url))

    @property
    def _run(self) -> Run:
        proposer = self.contest.settings.proposer if self.arm == PUBLISHED else self.arm
        return Run(self.file.with_suffix(""), replace(self.contest.settings, seed=self.seed, proposer=proposer))

    def _write(self, decoders: Sequence[tuple[str, DecoderConfig]], counts: Mapping[str, int]) -> None:
        found = [{"title": title, "architecture": config.to_dict()} for title, config in decoders]
        with disk_errors("cannot write a search of the benchmark"):
            write_json(self.file, {"arm": self.arm, "seed": self.seed, "decoders": found, "counts": counts})


def _helped_designs(latents: LatentSpec, budget: Budget) -> list[tuple[str, DecoderConfig]]:
    """Published designs with a linear shortcut, at every width at which they are within the budget.

    In the space of the search or not: they are what people would do without one.
    """
    designs = published_designs(latents)
    return [(title, config) for title, config in designs if config.shortcut is not None and budget.fits(config)]


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
        targets, settings = self.contest.targets, recipes.CPU.distillation(self.contest.full_steps, self.seed)
        decoder = build(DecoderConfig.from_dict(self.architecture), self.seed)
        found: dict[str, Any] = {"score_db": 0.0, "test_db": 0.0}
        try:
            result = distill(decoder, targets, settings, device=CPU)
            test_db = score_student(result.decoder, targets.split("test"), settings.batch_size, CPU)
            found = {"score_db": result.score, "test_db": test_db, "seconds": round(result.seconds, 1)}
        except (DivergedError, DoesNotFitError) as error:
            found["failure"] = str(error)
        with disk_errors("cannot write a distillation of the benchmark"):
            write_json(self.file, found)


def hold(
    contest: Contest, proposers: Sequence[str], seeds: int, workers: int, progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Search with every proposer and seed, distil what was found in full, and return what is known of every decoder.

    Args:
        contest: what all have in common.
        proposers: names of the proposers (`nas.proposals.names.PROPOSERS`); chance begins without published designs.
        seeds: searches of each.
        workers: processes side by side.
        progress: called with how many of all jobs are done, and their number.
    """
    searches = [Search(PUBLISHED, 0, contest)]
    searches += [Search(proposer, seed, contest) for seed in range(seeds) for proposer in proposers]
    with closing(ProcessPool(workers)) as pool:
        run_missing(searches, pool, lambda done, total: progress(done, 2 * total))
        found = [read_json(search.file) for search in searches]
        runs = {run.file: run for each in found for decoder in each["decoders"] for run in contest.full_runs(decoder)}
        run_missing(list(runs.values()), pool, lambda done, total: progress(total + done, 2 * total))
    rows = []
    for search, each in zip(searches, found, strict=True):
        for decoder in each["decoders"]:
            full = [read_json(run.file) for run in contest.full_runs(decoder)]
            about = {key: each[key] for key in ("arm", "seed", "counts")} | {"history": search.history()}
            rows.append(about | decoder | {"full": full})
    return rows
