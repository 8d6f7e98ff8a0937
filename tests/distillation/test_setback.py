"""Runs whose loss is not finite any more: told, taken back once, and nothing that was saved is spoilt."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.distillation.distill import DistillResult, Progress, distill
from nas.distillation.step import DivergedError
from tests.distillation.test_distill import SETTINGS, equal, run, weights_of
from tests.support.small_targets import build_student, make_targets, shards_of


def spoil(decoder: nn.Module) -> None:
    """From the next step on, its loss is no number."""
    with torch.no_grad():
        next(decoder.parameters()).fill_(math.nan)


def test_a_loss_that_is_no_number_ends_the_run_and_spoils_nothing(tmp_path: Path) -> None:
    """The last checkpoint goes on, as soon as the cause is gone, to the weights of a run without the accident."""
    path, student = tmp_path / "run.pt", build_student()

    def poison(progress: Progress) -> None:
        if progress.step == 7:
            spoil(student)

    with pytest.raises(DivergedError, match="the loss is nan at step 7"):
        distill(student, make_targets(), SETTINGS, device="cpu", checkpoint=path, report=poison)
    assert torch.load(path, weights_only=True)["step"] == 5
    assert equal(weights_of(run(checkpoint=path).decoder), weights_of(run().decoder))


def test_a_run_that_diverges_goes_back_once_and_on_at_half_the_rate(tmp_path: Path) -> None:
    """Also if it is cut off after that; a second time it ends."""
    path, targets = tmp_path / "run.pt", make_targets()
    said: list[str] = []

    def once(checkpoint: Path, setback: Callable[[str], None]) -> DistillResult:
        student = build_student()

        def poison(progress: Progress) -> None:
            if progress.step == 7 and not said:
                spoil(student)

        how = {"checkpoint": checkpoint, "report": poison, "setback": setback}
        return distill(student, targets, SETTINGS, device="cpu", **how)  # type: ignore[arg-type]

    def stop(why: str) -> None:
        said.append(why)
        raise KeyboardInterrupt

    result = once(path, said.append)
    assert said == ["the loss is nan at step 7: going on from step 5 at half the rate"]
    assert torch.load(path, weights_only=True)["rate"] == 0.5
    assert not equal(weights_of(result.decoder), weights_of(run().decoder))
    said.clear()
    again = tmp_path / "again.pt"
    with pytest.raises(KeyboardInterrupt):
        once(again, stop)
    assert equal(weights_of(run(checkpoint=again, setback=said.append).decoder), weights_of(result.decoder))
    memory = shards_of(targets, "train").loaded
    assert memory is not None
    memory[0]["frames"][:] = math.nan
    with pytest.raises(DivergedError, match="the loss is nan at step 0"):
        run(targets=targets, checkpoint=tmp_path / "hopeless.pt", setback=said.append)
    assert said[-1] == "the loss is nan at step 0: going on from step 0 at half the rate"


@pytest.mark.parametrize("rate", [1e2, 1e6, 1e20])
def test_a_learning_rate_far_too_high_is_told(rate: float) -> None:
    with pytest.raises(DivergedError, match=r"not finite|is nan|is inf"):
        run(replace(SETTINGS, learning_rate=rate))
