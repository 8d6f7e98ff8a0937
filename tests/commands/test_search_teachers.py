"""From clips to a saved decoder with every teacher: the real commands, weights given by path."""

from pathlib import Path

import pytest
import torch

from nas.latency import Workload, open_device
from nas.machine.files import read_json
from nas.model import TurboVAED
from nas.teachers import Teacher, load_teacher, published_latents
from search_spaces import PRESETS, Decoder, adapt
from tests.support.commands import Shell, refuse
from tests.support.run_folders import read_trials, was_trained
from tests.support.small_teachers import CONFIGS, make_weights, random_latents
from tests.support.videos import write_video

DEVICE = "iphone-16-pro"
OFF_THE_GRID = {
    "wan": ("16", "13 and 17"),
    "wan2.2": ("18", "17 and 21"),
    "wan-tiny": ("2", "1 and 5"),
    "hunyuan": ("20", "17 and 21"),
    "hunyuan1.5": ("14", "13 and 17"),
    "cogvideox": ("18", "16 and 17"),
    "ltx": ("13", "9 and 17"),
    "ltx2": ("24", "17 and 25"),
    "mochi": ("17", "13 and 19"),
    "cosmos": ("10", "9 and 17"),
    "video-dc-ae": ("17", "16 and 20"),
}
"""Frames that no latents of a teacher decode to, and the nearest that some do."""


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One to train on, one to score on, one to test on; as long and as large as the largest teacher needs."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        write_video(folder / f"video{number}.mp4", 34, 128, 144, video=number)
    return folder


def tight_budget(teacher: Teacher, workload: Workload) -> str:
    """What the fastest of the published designs takes at a quarter of its width: the others are not trained."""
    with torch.device("meta"):
        student = Decoder(adapt(PRESETS["turbo_vaed_ltx"], teacher.spec, 4))
    return f"{1.001 * open_device(DEVICE).latency(student, teacher.spec, workload).ms_per_frame:.6f}ms"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGS))
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
    check_finalize(shell, teacher)


def check_finalize(shell: Shell, teacher: Teacher) -> None:
    """Finalize makes a model of the run `R` that decodes to as many frames of the same size as its teacher."""
    spec = teacher.spec
    finished = shell.fork("nas.finalize", "R", "--steps", "2")
    assert (finished.status, finished.stderr) == (0, ""), finished.stdout
    (folder,) = (shell.folder / "R" / "models").iterdir()
    numbers = read_json(folder / "evaluation.json")
    known = {"name": teacher.name, "source": teacher.source, "sha256": teacher.weights_hash, "channels": spec.channels}
    assert numbers["teacher"].items() >= known.items()
    assert 3 < numbers["evaluation"]["to_teacher"]["psnr"] < 60

    model = TurboVAED.from_pretrained(folder)
    for num_latents, height, width in ((2, 2, 3), (3, 3, 2)):
        frames = model.decode(random_latents(spec, num_latents, height, width)).sample
        expected = (spec.num_frames(num_latents), height * spec.spatial, width * spec.spatial)
        assert frames.shape == (1, 3, *expected) and bool(frames.isfinite().all())


@pytest.mark.parametrize("name", sorted(OFF_THE_GRID))
def test_what_is_off_the_grid_is_refused_before_anything_is_loaded(name: str, tmp_path: Path) -> None:
    """There are no weights and no clips here."""
    shell = Shell(tmp_path, tmp_path / "cache")
    frames, near = OFF_THE_GRID[name]
    of_teacher = ["--teacher", name, "--teacher-weights", "nowhere", "--clips", "nowhere", "--latency-budget", "30ms"]
    fits = f"does not fit {name}"
    refuse(shell, "nas.search", [*of_teacher, "--frames", frames], fits, f"the nearest valid counts are {near}")
    space = published_latents(name)
    assert space is not None
    off = f"{4 * space.spatial}x{4 * space.spatial + 4}"
    message = f"width must be a multiple of {space.spatial}", f"{4 * space.spatial} and {5 * space.spatial}"
    refuse(shell, "nas.search", [*of_teacher, "--resolution", off], fits, *message)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_weights_of_another_teacher_or_cut_off_are_refused(name: str, tmp_path: Path) -> None:
    shell, weights = Shell(tmp_path, tmp_path / "cache"), make_weights(name, tmp_path / "weights")
    other = "ltx" if CONFIGS[name][0] == "AutoencoderKLWan" else "wan"
    arguments = ["--teacher-weights", "weights", "--clips", "nowhere", "--latency-budget", "30ms"]
    classes = f"is for {CONFIGS[name][0]}, expected {CONFIGS[other][0]}"
    refuse(
        shell, "nas.search", ["--teacher", other, *arguments], "config.json", classes, "another --teacher or weights"
    )
    file = weights / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refuse(shell, "nas.search", ["--teacher", name, *arguments], f"{file.name} is not a complete safetensors file")
