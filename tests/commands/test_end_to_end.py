"""A search and what follows from it, as a user goes through it: run folder, second look, finished models."""

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nas.latency.budget import format_ms
from nas.machine.files import read_json
from search_spaces import Decoder, DecoderConfig
from tests.support.commands import Inputs, Shell, children_cpu_seconds, make_run, wait_for_file
from tests.support.run_folders import list_files, read_trials, was_trained

BUDGET_MS = 0.2
"""Of `Inputs.arguments`."""


@pytest.fixture
def run_folder(shell: Shell, inputs: Inputs) -> Path:
    """A finished search of two trials, in `R`."""
    shutil.copytree(make_run(inputs), shell.folder / "R")
    return shell.folder / "R"


# Search


def test_run_folder_holds_all_that_was_found(run_folder: Path, inputs: Inputs) -> None:
    config = read_json(run_folder / "config.json")
    assert config["settings"]["teacher_weights"] == str(inputs.teacher)
    assert config["settings"]["budget"] == f"{BUDGET_MS:g}ms"
    assert config["versions"]["torch"] == torch.__version__
    trials = read_trials(run_folder)
    trained = [trial for trial in trials if was_trained(trial)]
    assert len(trained) == 2
    assert sorted(path.name for path in (run_folder / "trials").iterdir()) == [str(trial.number) for trial in trained]
    for trial in trained:
        files = run_folder / "trials" / str(trial.number)
        assert read_json(files / "config.json") == trial.user_attrs["config"]
        result = read_json(files / "result.json")
        assert result["score_db"] == trial.value == trial.user_attrs["score"]
        assert 3 < result["score_db"] < 60
        assert [step for step, _ in result["curve"]] == [1, 2]
    assert not list(run_folder.rglob(".*.json*")), "no temporary file is left"


def test_nothing_over_budget_was_trained(run_folder: Path) -> None:
    trials = read_trials(run_folder)
    assert trials
    for trial in trials:
        latency = trial.user_attrs["latency"]
        assert (latency["kind"], latency["device"]) == ("predicted", "iphone-16-pro")
        assert math.isclose(sum(latency["by_stage"].values()), latency["ms_per_frame"], rel_tol=1e-6)
        assert was_trained(trial) == (latency["ms_per_frame"] <= BUDGET_MS)
        assert trial.constraints == {"latency": pytest.approx((latency["ms_per_frame"] - BUDGET_MS) / BUDGET_MS)}


def test_same_command_again_does_nothing_more(shell: Shell, inputs: Inputs, run_folder: Path) -> None:
    before, trials = list_files(run_folder / "trials"), read_trials(run_folder)
    done = shell.run("nas.search", *inputs.arguments("--run", "R"))
    assert (done.status, done.stderr) == (0, "")
    assert list_files(run_folder / "trials") == before
    assert read_trials(run_folder) == trials
    assert "R (continued)" in done.stdout
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    for trial in trials:
        row = next(line for line in done.stdout.splitlines() if re.match(rf" +{trial.number}  ", line))
        latency = trial.user_attrs["latency"]["ms_per_frame"]
        assert f" {format_ms(latency, BUDGET_MS)}*" in row
        assert (f"{trial.value:.2f}" if was_trained(trial) else "over budget, not trained") in row
    assert "ms/frame*: per decoded frame at 64x64 x 5 frames, predicted for iphone-16-pro" in done.stdout
    assert re.search(r"^ +\d+  .* \d+\.\d+\* .* \d+\.\d+$", done.stdout.split("\nfront ")[1], re.MULTILINE)
    assert re.search(r"^next +python -m nas.finalize R$", done.stdout, re.MULTILINE)


@pytest.mark.timing
def test_same_command_again_takes_seconds(shell: Shell, inputs: Inputs, run_folder: Path) -> None:
    assert shell.run("nas.search", *inputs.arguments("--run", "R")).cpu_seconds < 10


def test_more_trials_continue_the_run(kept_run: Path, undisturbed: Path) -> None:
    before, trials = list_files(kept_run / "trials"), read_trials(kept_run)
    after = read_trials(undisturbed)
    assert after[: len(trials)] == trials
    assert sum(map(was_trained, after)) == 3
    files = list_files(undisturbed / "trials")
    assert {name: files[name] for name in before} == before and len(files) == len(before) + 3


@pytest.fixture
def second(shell: Shell, inputs: Inputs) -> Shell:
    """A shell with its own copy of the cache that the first search left."""
    make_run(inputs)
    shutil.copytree(inputs.cache, shell.folder / "cache")
    return Shell(shell.folder, shell.folder / "cache")


def search_until_it_trains(shell: Shell, inputs: Inputs) -> Path:
    """Another search than that of `make_run`, ended when it trains; returns its run folder."""
    with shell.start("-m", "nas.search", *inputs.arguments("--seed", "5")):
        return wait_for_file(shell.folder, "runs/*/trials/*/config.json").parents[2]


def test_second_search_reuses_the_targets(second: Shell, inputs: Inputs) -> None:
    before = list_files(second.cache / "targets")
    assert any(name.endswith(".safetensors") for name in before)
    run = search_until_it_trains(second, inputs)
    assert list_files(second.cache / "targets") == before
    assert re.fullmatch(r"wan-tiny-0\.2ms-\d{4}", run.name)


@pytest.mark.timing
def test_second_search_soon_trains(second: Shell, inputs: Inputs) -> None:
    used = children_cpu_seconds()
    search_until_it_trains(second, inputs)
    assert children_cpu_seconds() - used < 10


@pytest.mark.slow
def test_budget_for_this_machine_is_measured(shell: Shell, inputs: Inputs) -> None:
    small = ["--device", "host", "--space", "turbo3d", "--latency-budget", "20ms", "--trials", "1", "--steps", "1"]
    done = shell.fork("nas.search", *inputs.arguments(*small, "--run", "R"))
    assert (done.status, done.stderr) == (0, "")
    assert "measured on this machine" in done.stdout and "1 thread)" in done.stdout
    assert "*" not in done.stdout and "predicted" not in done.stdout
    ended = [trial for trial in read_trials(shell.folder / "R") if trial.state.is_finished()]
    assert any(map(was_trained, ended))
    for trial in ended:  # published designs that were not reached are still waiting
        latency = trial.user_attrs["latency"]
        assert latency["kind"] == "measured" and "PyTorch" in latency["method"]
        assert was_trained(trial) == (latency["ms_per_frame"] <= 20)


# Finalize

LOAD = """
import sys, torch
from nas.model import TurboVAED
model = TurboVAED.from_pretrained(sys.argv[1])
torch.save(model.decode(torch.load(sys.argv[2])).sample, sys.argv[3])
"""


def test_finished_model(shell: Shell, inputs: Inputs, run_folder: Path) -> None:
    done = shell.fork("nas.finalize", "R", "--steps", "2")
    assert (done.status, done.stderr) == (0, "")
    (folder,) = (run_folder / "models").iterdir()
    check_model_folder(folder, inputs)
    check_comparison(done.stdout, [folder])
    check_loads_in_a_new_process(shell, folder)

    before = list_files(run_folder / "models"), list_files(run_folder / "finalize")
    again = shell.fork("nas.finalize", "R", "--steps", "2")
    assert (again.status, again.stderr) == (0, "")
    assert (list_files(run_folder / "models"), list_files(run_folder / "finalize")) == before
    assert "distilled" in done.stdout and "distilled" not in again.stdout
    check_comparison(again.stdout, [folder])


@pytest.mark.slow
def test_two_finished_models_elsewhere(shell: Shell, inputs: Inputs, run_folder: Path) -> None:
    done = shell.fork("nas.finalize", "R", "--steps", "2", "--top", "2", "--out", "mine")
    assert (done.status, done.stderr) == (0, "")
    assert not (run_folder / "models").exists()
    folders = sorted((shell.folder / "mine").iterdir())
    assert len(folders) == 2
    for folder in folders:
        check_model_folder(folder, inputs)
    check_comparison(done.stdout, folders)


def check_model_folder(folder: Path, inputs: Inputs) -> None:
    """Complete; every latency says what it is; the PSNR is that of the weights that are there."""
    expected = {"README.md", "config.json", "diffusion_pytorch_model.safetensors", "evaluation.json"}
    expected |= {"decoder.mlpackage", "pictures"}
    assert {path.name for path in folder.iterdir()} == expected
    numbers = read_json(folder / "evaluation.json")
    assert numbers["latency_measured"]["kind"] == "measured"
    assert "this machine" in numbers["latency_measured"]["device"]
    assert numbers["latency_predicted"]["kind"] == "predicted"
    assert numbers["latency_predicted"]["device"] == "iphone-16-pro"
    assert numbers["latency_predicted"]["ms_per_frame"] <= BUDGET_MS
    assert numbers["distillation"]["steps"] == 2
    assert numbers["core_ml"]["packages"]["decoder.mlpackage"]["psnr"] >= 40
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert numbers["parameters"] == sum(tensor.numel() for tensor in weights.values())
    card = (folder / "README.md").read_text()
    assert "predicted for iphone-16-pro" in card and "measured on this machine" in card
    assert str(numbers["parameters"]) in card.replace(",", "")

    unseen = inputs.cache / "targets" / numbers["evaluation"]["targets"]
    assert {shard["split"] for shard in read_json(unseen / "index.json")["shards"].values()} == {"test"}
    (clip,) = unseen.glob("test-*.safetensors")
    targets = load_file(clip)
    assert numbers["evaluation"]["to_teacher"]["psnr"] == pytest.approx(psnr_of(folder, targets), abs=0.01)


def load_decoder(folder: Path) -> Decoder:
    """Without diffusers and without the class that wrote the folder."""
    config = read_json(folder / "config.json")
    (architecture,) = (value for value in config.values() if isinstance(value, dict) and "stages" in value)
    decoder = Decoder(DecoderConfig.from_dict(architecture)).eval()
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    decoder.load_state_dict({name.removeprefix("decoder."): tensor for name, tensor in weights.items()})
    return decoder


def psnr_of(folder: Path, targets: dict[str, Tensor]) -> float:
    """Mean over samples and frames of PSNR in dB against the teacher, value range 2."""
    with torch.no_grad():
        frames = load_decoder(folder)(targets["latents"]).clamp(-1, 1)
    error = (frames - targets["frames"].float()).square().mean(dim=(1, 3, 4))
    return float((10 * torch.log10(4 / error)).mean())


def check_comparison(stdout: str, folders: list[Path]) -> None:
    """Baseline, teacher and students in one table that says which latency is which."""
    lines = stdout.splitlines()
    assert any(line.startswith("nearest linear RGB") for line in lines)
    assert any(line.startswith("teacher wan-tiny") for line in lines)
    for folder in folders:
        numbers = read_json(folder / "evaluation.json")
        values = [numbers["evaluation"][against]["psnr"] for against in ("to_teacher", "to_truth")]
        assert any(all(f"{value:.2f} /" in line for value in values) for line in lines if re.match(r"#\d+ ", line))
        assert str(folder).endswith(next(line.split()[-1] for line in lines if folder.name in line))
    assert re.search(r"^here: .* measured on this machine", stdout, re.MULTILINE)
    assert re.search(r"^\*: .* predicted for iphone-16-pro", stdout, re.MULTILINE)
    assert "\x1b" not in stdout and "\r" not in stdout


def check_loads_in_a_new_process(shell: Shell, folder: Path) -> None:
    latents = torch.randn(1, 16, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.save(latents, shell.folder / "latents.pt")
    with shell.start("-c", LOAD, str(folder), "latents.pt", "frames.pt") as process:
        _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    frames = torch.load(shell.folder / "frames.pt")
    assert frames.shape == (1, 3, 9, 48, 64)
    with torch.no_grad():
        assert torch.equal(frames, load_decoder(folder)(latents).clamp(-1, 1))


def test_finalize_takes_the_newest_run_and_says_so(shell: Shell, inputs: Inputs, run_folder: Path) -> None:
    for name in ("older", "newer"):
        shutil.copytree(run_folder, shell.folder / "runs" / name)
        os.utime(shell.folder / "runs" / name / "config.json", (1e9, 1e9))
        os.utime(shell.folder / "runs" / name / ".lock", (1e9 + len(name) % 5, 1e9 + len(name) % 5))
    os.utime(shell.folder / "runs" / "newer" / ".lock", (1e9 + 60, 1e9 + 60))
    done = shell.fork("nas.finalize", "--clips", "nowhere")
    assert "run       runs/newer (the newest)\n" in done.stdout
    assert done.status == 2 and "nowhere" in done.error


# As a new user does it


@pytest.mark.slow
def test_embedded_teacher_and_clips(shell: Shell) -> None:
    fresh = Shell(shell.folder, shell.folder / "cache")
    words = "--teacher wan-tiny --latency-budget 2ms --resolution 256x256 --trials 2 --steps 6 --run R"
    done = fresh.run("nas.search", *words.split())
    assert (done.status, done.stderr) == (0, "")
    assert "embedded: 8 to train on, 2 to score on, 2 to test on" in done.stdout
    done = fresh.run("nas.finalize", "R", "--steps", "8")
    assert (done.status, done.stderr) == (0, "")
    (folder,) = (shell.folder / "R" / "models").iterdir()
    numbers: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    assert numbers["latency_predicted"]["ms_per_frame"] <= 2
    assert 20 < numbers["teacher_evaluation"]["to_truth"]["psnr"] < 60
