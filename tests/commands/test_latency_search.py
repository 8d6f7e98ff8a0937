"""Searches whose latency is measured elsewhere or again: through an agent that is killed on the way, and afterwards."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.latency import LatencyRecord, MeasurementFailedError
from nas.machine.files import read_json
from nas.proposals.registry import make_sampler
from nas.study.constraints import Constraint
from nas.study.costs import Costs
from nas.study.limits import StudyLimits
from nas.study.loop import Events, run_study
from nas.study.outcomes import Outcome, read_outcomes
from nas.study.remeasure import measured_leaders
from nas.study.run import load_run
from nas.study.study import load_study, open_study
from nas.workers.job import Segment
from nas.workers.pool import InlinePool
from search_spaces import SEARCH_SPACES, DecoderConfig, LatentSpec
from tests.support.agents import TOKEN, running_agent
from tests.support.commands import Inputs, Shell, make_run, refuse
from tests.support.records import latency
from tests.support.run_folders import read_trials, was_trained

BROKEN_UNITS = "Core ML ran it with no setting of the compute units (ALL: the measuring process was ended by SIGABRT)"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands need to talk to the agents that are started here."""
    monkeypatch.setenv("NAS_AGENT_TOKEN", TOKEN)


# Measured again


@pytest.mark.slow
def test_leaders_are_measured_again_and_ranked_by_that_alone(shell: Shell, inputs: Inputs) -> None:
    shutil.copytree(make_run(inputs), shell.folder / "R")
    run = load_run(shell.folder / "R")
    before = read_trials(run.folder)
    assert measured_leaders(run, read_outcomes(load_study(run.storage_url))) is None
    done = shell.run("nas.latency", "measure", "R", "--device", "host")
    # What the small search found for a phone takes longer than 0.2 ms per frame here.
    assert done.status == 3 and "no candidate meets 0.2 ms per frame where it was measured" in done.error
    scored = [trial for trial in before if trial.user_attrs.get("status") == "scored"]
    kept = read_json(run.folder / "measured" / "host.json")
    assert kept["device"] == "host" and set(kept["records"]) == {trial.user_attrs["digest"] for trial in scored}
    records = [LatencyRecord.from_dict(record) for record in kept["records"].values()]
    assert all(record.kind == "measured" and record.device.startswith("this machine") for record in records)
    assert "ms/frame: ms per frame at 64x64 x 5 frames, measured on this machine" in done.stdout
    assert "in search ms/frame*: ms per frame at 64x64 x 5 frames, predicted for iphone-16-pro" in done.stdout
    # The search keeps its own numbers, all of one kind.
    assert read_trials(run.folder) == before
    again = measured_leaders(run, read_outcomes(load_study(run.storage_url)))
    assert again == ("host", [])
    finished = shell.run("nas.finalize", "R", "--steps", "1")
    assert finished.status == 3 and "only candidates that meet the budget on host" in finished.stdout


def test_measuring_again_needs_a_device_that_measures(shell: Shell, inputs: Inputs) -> None:
    shutil.copytree(make_run(inputs), shell.folder / "R")
    refuse(shell, "nas.latency", ["measure", "R", "--device", "iphone-16-pro"], "iphone-16-pro is predicted")
    refuse(shell, "nas.latency", ["measure", "R", "--device", "hosst"], "did you mean 'host'?")
    refuse(shell, "nas.latency", ["measure", "nowhere", "--device", "host"], "nowhere is not a run folder")
    refuse(shell, "nas.search", inputs.arguments("--device", "coreml"), "--device coreml needs a Mac")
    refuse(shell, "nas.latency", ["calibrate", "--device", "iphone"], "--device iphone needs a Mac")


# A device that cannot run everything


class Choosy:
    """A device that runs only some decoders; everything else about them is arithmetic."""

    def __init__(self, runs: Callable[[DecoderConfig], bool]) -> None:
        self.runs = runs

    def candidate(self, config: DecoderConfig) -> "Chosen":
        return Chosen(config, self)


@dataclass(frozen=True)
class Chosen:
    """A candidate on that device."""

    config: DecoderConfig
    device: Choosy
    problem: str = ""

    @property
    def costs(self) -> Costs:
        if not self.device.runs(self.config):
            raise MeasurementFailedError(BROKEN_UNITS)
        return Costs(RECORD, parameters=1000)

    def work(self, until: int) -> Callable[[], Segment]:
        assert self.device.runs(self.config)
        return lambda: Segment(((until, 20.0),))

    def record(self, number: int, segment: Segment) -> None:
        pass

    def forget(self) -> None:
        pass


RECORD = latency(5.0, "measured")


def search(folder: Path, device: Choosy, trials: int) -> tuple[list[Outcome], dict[str, str]]:
    """Outcomes, and the reason for each decoder that was left out."""
    latents = LatentSpec(channels=16, spatial=8, temporal=4)
    sampler = make_sampler("random", 0, SEARCH_SPACES["hybrid"], latents)
    study = open_study(f"sqlite:///{folder / 'study.db'}", sampler, steps=30)
    left_out: dict[str, str] = {}
    outcomes: list[Outcome] = []
    limits = StudyLimits(trials=trials)
    run_study(
        study,
        SEARCH_SPACES["hybrid"],
        latents,
        (Constraint("latency", 10.0, "ms per frame"),),
        limits,
        device.candidate,
        InlinePool(),
        30,
        Events(outcomes.append, lambda config, reason: left_out.update({config.digest(): reason})),
    )
    return outcomes, left_out


def test_a_decoder_that_the_device_cannot_run_is_never_trained(tmp_path: Path) -> None:
    device = Choosy(lambda config: int(config.digest(), 16) % 2 == 0)
    outcomes, left_out = search(tmp_path, device, 6)
    assert len(outcomes) >= 6 and left_out
    assert all(device.runs(outcome.config) for outcome in outcomes)
    assert set(left_out.values()) == {BROKEN_UNITS}
    assert not {outcome.config.digest() for outcome in outcomes} & set(left_out)


def test_a_device_that_runs_nothing_ends_the_search(tmp_path: Path) -> None:
    device = Choosy(lambda config: False)
    with pytest.raises(ValueError, match="the device ran none of the last 10 decoders: Core ML ran it with no setting"):
        search(tmp_path, device, 6)


# Through an agent


@pytest.mark.slow
def test_a_search_goes_on_when_its_agent_is_killed_and_started_again(
    shell: Shell, inputs: Inputs, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    with running_agent(folder) as first:
        port = int(first.address.rsplit(":", 1)[1])
        # Over a second per frame is never met by accident: every proposal is measured, trained and scored.
        words = inputs.arguments("--device", first.address, "--run", "R", "--latency-budget", "900ms", "--trials", "3")
        with shell.start("-m", "nas.search", *words) as process:
            deadline = time.monotonic() + 200
            while not (folder / "uploads").exists() or not list((folder / "uploads").iterdir()):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            first.process.kill()
            first.process.wait()
            time.sleep(3)
            assert process.poll() is None
            with running_agent(folder, port=port):
                stdout, stderr = process.communicate(timeout=400)
    assert (process.returncode, stderr) == (0, ""), stderr
    trials = read_trials(shell.folder / "R")
    assert sum(map(was_trained, trials)) == 3
    finished = [trial for trial in trials if "latency" in trial.user_attrs]
    assert {trial.user_attrs["latency"]["kind"] for trial in finished} == {"measured"}
    assert f"by the agent at {first.address}" in stdout
    assert "*" not in stdout.split("\nfront ")[1]
    assert json.loads((shell.folder / "R" / "config.json").read_text())["settings"]["device"] == first.address


@pytest.mark.slow
def test_a_search_whose_agent_is_gone_says_so_and_can_go_on(shell: Shell, inputs: Inputs, tmp_path: Path) -> None:
    with running_agent(tmp_path / "agent") as agent:
        words = inputs.arguments("--device", agent.address, "--run", "R", "--latency-budget", "900ms", "--trials", "1")
        killer = threading.Timer(0, agent.process.kill)
        assert shell.run("nas.search", *words).status == 0
        killer.start()
        killer.join()
        agent.process.wait()
    refused = shell.run("nas.search", *words)
    assert refused.status == 2 and f"no agent answers at {agent.address}" in refused.error
