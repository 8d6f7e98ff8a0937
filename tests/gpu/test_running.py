"""Finished decoders on a GPU: frames, streams, tiles, evaluation, latency, and the commands."""

from pathlib import Path

import pytest
import torch

from nas.evaluation.quality import evaluate
from nas.latency import Workload, measure
from nas.machine.files import read_json
from nas.model.tiling import TiledDecoder
from search_spaces import PRESETS, Decoder, LatentSpec, adapt
from tests.support.commands import Shell, make_inputs
from tests.support.small_targets import build_student, make_targets

LATENTS = LatentSpec(channels=16, spatial=8, temporal=4)
CONFIG = adapt(PRESETS["turbo_vaed_hunyuan"], LATENTS, 8)


@pytest.fixture
def decoder(device: torch.device) -> Decoder:
    torch.manual_seed(0)
    return Decoder(CONFIG).to(device).eval()


@torch.inference_mode()
def test_frames_are_those_of_a_cpu_in_one_shot_streamed_and_tiled(decoder: Decoder, device: torch.device) -> None:
    latents = torch.randn(1, 16, 5, 6, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    wanted = Decoder(CONFIG).eval()(latents)
    there = latents.to(device)
    frames = decoder(there)
    assert frames.device.type == device.type
    scale = float(wanted.std())
    torch.testing.assert_close(frames.cpu(), wanted, rtol=0, atol=0.02 * scale)
    first, state = decoder.stream(there[:, :, :2])
    rest, _ = decoder.stream(there[:, :, 2:], state)
    torch.testing.assert_close(torch.cat([first, rest], dim=2), frames, rtol=0, atol=0.02 * scale)
    tiled = TiledDecoder(decoder, 32, 32)(there)
    torch.testing.assert_close(tiled.to(device), frames, rtol=0, atol=0.02 * scale)


@torch.inference_mode()
def test_numbers_of_an_evaluation_are_those_of_a_cpu(device: torch.device) -> None:
    targets, student = make_targets(), build_student().eval()
    wanted = evaluate(student, targets)
    found = evaluate(student.to(device), targets, device=device)
    assert found.psnr_teacher == pytest.approx(wanted.psnr_teacher, abs=0.05)
    assert found.to_truth.ssim == pytest.approx(wanted.to_truth.ssim, abs=0.005)


def test_latency_is_measured_there(device: torch.device) -> None:
    record = measure(Decoder(CONFIG), LATENTS, Workload(64, 64, 5), device=device, time_limit_s=0.1)
    assert record.kind == "measured" and record.ms_per_frame > 0
    assert record.dtype == ("float32" if device.type == "cpu" else "float16")
    assert record.ms_per_frame == pytest.approx(sum(record.by_stage.values()), rel=1e-6)


@pytest.mark.usefixtures("cuda")
def test_a_search_and_its_model(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The commands choose the GPU by themselves."""
    inputs = make_inputs(tmp_path_factory)
    shell = Shell(tmp_path, inputs.cache)
    searched = shell.run("nas.search", *inputs.arguments("--run", "R"))
    assert searched.status == 0, searched.stderr
    finished = shell.run("nas.finalize", "R", "--steps", "2")
    assert finished.status == 0, finished.stderr
    (model,) = (shell.folder / "R" / "models").iterdir()
    assert read_json(model / "evaluation.json")
