"""From clips to a saved decoder with every teacher: the real commands, weights given by path."""

from pathlib import Path

import pytest
import torch
from commands import Shell, read_trials, was_trained
from small_teachers import CONFIGS, make_weights, random_latents
from videos import write_video

from nas.files import read_json
from nas.latency import Workload, open_device
from nas.model import TurboVAED
from nas.teachers import Teacher, load_teacher
from search_spaces import PRESETS, Decoder, adapt

QUICK = ("cogvideox", "video-dc-ae")
"""The rule of parity, and frames and taps unlike those of all the others."""
DEVICE = "iphone-16-pro"


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One to train on, one to score on, one to test on; as long and as large as the largest teacher needs."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        write_video(folder / f"video{number}.mp4", 34, 128, 144, video=number)
    return folder


def tight_budget(teacher: Teacher, workload: Workload) -> str:
    """What the narrowest of the published designs takes: all larger ones are over budget, and the test is quick."""
    with torch.device("meta"):
        students = [Decoder(adapt(preset, teacher.spec, 4)) for preset in PRESETS.values()]
    device = open_device(DEVICE)
    fastest = min(device.latency(student, teacher.spec, workload).ms_per_frame for student in students)
    return f"{1.001 * fastest:.6f}ms"


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(CONFIGS)]
)
def test_search_and_finalize(name: str, videos: Path, tmp_path: Path) -> None:
    weights = make_weights(name, tmp_path / "weights")
    teacher = load_teacher(name, weights)
    spec, shell = teacher.spec, Shell(tmp_path, tmp_path / "cache")
    workload = Workload(64, 64, spec.num_frames(2))
    budget = tight_budget(teacher, workload)
    settings = f"--trials 1 --steps 2 --resolution 64x64 --frames {workload.num_frames} --time-limit 60s --run R"
    of_teacher = ["--teacher", name, "--teacher-weights", str(weights), "--clips", str(videos)]
    searched = shell.fork("nas.search", *of_teacher, "--latency-budget", budget, "--device", DEVICE, *settings.split())
    assert (searched.status, searched.stderr) == (0, ""), searched.stdout
    assert f"teacher   {name}: {teacher.class_name}, {spec.channels} channels" in searched.stdout
    trials = read_trials(tmp_path / "R")
    (trained,) = [trial for trial in trials if was_trained(trial)]
    assert trained.value is not None and 3 < trained.value < 60

    finished = shell.fork("nas.finalize", "R", "--steps", "2")
    assert (finished.status, finished.stderr) == (0, ""), finished.stdout
    (folder,) = (tmp_path / "R" / "models").iterdir()
    numbers = read_json(folder / "evaluation.json")
    assert numbers["teacher"] == {"name": name, "source": str(weights), "sha256": teacher.weights_hash}
    assert 3 < numbers["evaluation"]["to_teacher"]["psnr"] < 60

    model = TurboVAED.from_pretrained(folder)
    for num_latents, height, width in ((2, 2, 3), (3, 3, 2)):
        frames = model.decode(random_latents(spec, num_latents, height, width)).sample
        expected = (spec.num_frames(num_latents), height * spec.spatial, width * spec.spatial)
        assert frames.shape == (1, 3, *expected) and bool(frames.isfinite().all())
