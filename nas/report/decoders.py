"""Every proposal of a search as the report shows it: plain values."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

from nas.latency.record import LatencyRecord, provenance
from nas.latency.stages import stage_modules
from nas.study.outcomes import Outcome, finished_trials, outcome_of, pareto_front
from search_spaces import Decoder, DecoderConfig, StageConfig

WORDS = {"pruned": "stopped early", "same": "proposed before"}
"""Statuses that the report has other words for."""


def describe_decoders(study: optuna.Study, measured: dict[str, LatencyRecord]) -> list[dict[str, Any]]:
    """All proposals with an outcome, in order.

    Args:
        study: the study of the search.
        measured: latencies that were measured after the search, by digest of the architecture.
    """
    trials = finished_trials(study)
    outcomes = [outcome_of(trial) for trial in trials]
    front = {outcome.number for outcome in pareto_front(outcomes)}
    return [
        _describe(trial, outcome, outcome.number in front, measured.get(outcome.config.digest()))
        for trial, outcome in zip(trials, outcomes, strict=True)
    ]


def _describe(trial: FrozenTrial, outcome: Outcome, on_front: bool, measured: LatencyRecord | None) -> dict[str, Any]:
    latency = outcome.latency
    return {
        "number": outcome.number,
        "name": outcome.config.summary(),
        "preset": outcome.preset,
        "status": outcome.status,
        "became": ": ".join(filter(None, (WORDS.get(outcome.status, outcome.status), outcome.detail))),
        "score": outcome.score,
        "ms": latency.ms_per_frame,
        "kind": latency.kind,
        "error": latency.error,
        "provenance": provenance(latency.workload, latency.kind, latency.device, latency.error),
        "measured": None if measured is None else measured.ms_per_frame,
        "parameters": outcome.parameters,
        "front": on_front,
        "origin": outcome.origin or _origin(trial),
        "curve": sorted([step, score] for step, score in trial.intermediate_values.items() if score > 0),
        "stages": describe_stages(outcome.config, latency.by_stage),
    }


def _origin(trial: FrozenTrial) -> str:
    """How it came to be proposed, in words."""
    if "preset" in trial.user_attrs:
        return "published design"
    proposer, parent = trial.user_attrs.get("proposer", ""), trial.user_attrs.get("parent")
    return f"{proposer}, from #{parent}" if parent is not None else str(proposer)


def describe_stages(config: DecoderConfig, by_stage: dict[str, float]) -> list[dict[str, Any]]:
    """The parts of a decoder in the order of execution: what each is, its milliseconds and its parameters."""
    words, parameters = _stage_words(config), _stage_parameters(config)
    return [
        {"name": name, "what": words.get(name, ""), "ms": by_stage.get(name, 0.0), "parameters": count}
        for name, count in parameters
    ]


@lru_cache(maxsize=1024)
def _stage_parameters(config: DecoderConfig) -> Sequence[tuple[str, int]]:
    with torch.device("meta"):  # it was built before, so that its parts fit together need not be tried
        groups = stage_modules(Decoder(config))
    return [(name, sum(each.numel() for each in module.parameters())) for name, module in groups.items()]


def _stage_words(config: DecoderConfig) -> dict[str, str]:
    words = {"stem": _words(config.stem.name), "head": _words(config.head.name)}
    if config.shortcut is not None:
        words["shortcut"] = _words(config.shortcut.name)
    for index, stage in enumerate(config.stages):
        words[f"stage{index}"] = _words_of_stage(stage)
    return words


def _words_of_stage(stage: StageConfig) -> str:
    parts = []
    if stage.upsampler is not None:
        factor = f"{stage.temporal_factor}x{stage.spatial_factor}x{stage.spatial_factor}"
        parts.append(f"{_words(stage.upsampler.name)} {factor}")
    if stage.transition is not None:
        parts.append(_words(stage.transition.name))
    if stage.depth:
        parts.append(f"{stage.depth} x {_words(stage.block.name)}")
    return f"{', '.join(parts)}; {stage.width} channels"


def _words(name: str) -> str:
    return name.replace("_", " ")
