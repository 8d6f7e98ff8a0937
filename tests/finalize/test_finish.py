"""From a candidate to a model folder: made once, made again when what it depends on has changed, and only then."""

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from blocks import get_block
from nas.data.latent_clips import LatentClip
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.splits import open_clips
from nas.distillation.settings import DistillSettings
from nas.evaluation.quality import evaluate
from nas.finalize.costs import teacher_latency
from nas.finalize.distilling import distil_in_full
from nas.finalize.finish import check_out, finish, finished_model, model_folder
from nas.finalize.job import Job, Stretch
from nas.latency import open_device
from nas.machine.batches import DoesNotFitError
from nas.machine.files import read_json, write_json
from nas.model import TurboVAED
from nas.model.card import render_card
from nas.model.folder import read_record
from nas.model.record import ModelRecord
from nas.study.outcomes import Outcome
from nas.study.run import Run
from nas.study.settings import RunSettings
from nas.teachers import load_teacher
from search_spaces import Decoder
from tests.model.test_model import frames_of
from tests.support.errors import refusal
from tests.support.small_memory import limited
from tests.support.small_targets import CONFIG


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """With the embedded teacher and clips, very small everything."""
    folder = tmp_path_factory.mktemp("finishing")
    (folder / "run").mkdir()
    teacher = load_teacher("wan-tiny")
    clips = open_clips(None, 9)
    clips = replace(clips, train=clips.train[:2], score=clips.score[:1])
    settings = TargetSettings(32, 9, train_crops=2, score_crops=1, test_crops=0, taps=teacher.tap_names[:1])
    longer = replace(settings, num_frames=17, taps=())
    judging = replace(settings, train_crops=0, score_crops=0, test_crops=1, taps=())
    run = RunSettings("wan-tiny", None, None, "30ms", "iphone-16-pro", 64, 64, 5, "hybrid", 3, 0)
    return Job(
        run=Run(folder / "run", run),
        teacher=teacher,
        recipe="short",
        stretches=(
            Stretch("frames", open_targets(teacher, clips, settings, cache=folder), DistillSettings(3)),
            Stretch("longer clips", open_targets(teacher, clips, longer, cache=folder), DistillSettings(2)),
        ),
        unseen=open_targets(teacher, clips, judging, cache=folder),
        device=torch.device("cpu"),
        phone=open_device("iphone-16-pro"),
        clips="the embedded clips",
        out=folder / "models",
    )


@pytest.fixture(scope="module")
def candidate(job: Job) -> Outcome:
    """As a search would have found it."""
    config = replace(CONFIG, latents=job.teacher.spec, stages=(*CONFIG.stages, CONFIG.stages[1]))
    latency = job.phone.latency(Decoder(config), config.latents, job.workload)
    return Outcome(7, config, latency, parameters=37036, status="scored", score=21.0)


def quietly(job: Job, candidate: Outcome) -> ModelRecord:
    return finish(Console(file=io.StringIO()), job, candidate)


def changed(job: Job, index: int, **changes: Any) -> Job:
    """The same with another phase."""
    stretches = [replace(each, **changes) if each is job.stretches[index] else each for each in job.stretches]
    return replace(job, stretches=tuple(stretches))


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_model_folder_is_made_once(job: Job, candidate: Outcome) -> None:
    record = quietly(job, candidate)
    (folder,) = job.out.iterdir()
    model = TurboVAED.from_pretrained(folder)
    assert read_record(folder) == record and record.parameters == 37036
    assert record.latency_measured.kind == "measured" and record.latency_predicted.kind == "predicted"
    found = evaluate(lambda latents: frames_of(model, latents), job.unseen)
    assert record.evaluation.psnr_teacher == pytest.approx(found.psnr_teacher, abs=1e-4)
    card = (folder / "README.md").read_text()
    assert not re.search("[{}]|None|nan", card)
    assert f"{found.psnr_teacher:.2f} dB" in card and f"{found.ssim_truth:.4f}" in card
    quality = record.evaluation.to_teacher
    assert quality is not None and quality.sharpness is not None
    assert f"over the teacher's | {quality.sharpness:.2f} |" in card and "decodes of more than 17 frames" in card
    assert (
        "37,036" in card
        and "5 steps" in card
        and "longer clips (2 steps)" in card
        and "predicted for iphone-16-pro" in card
    )
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
        "median.mp4", "median.png", "worst.mp4", "worst.png"
    ]  # fmt: skip
    assert "![the worst clip](pictures/worst.png)" in card
    before = stamps(folder)
    assert quietly(job, candidate) == record
    assert stamps(folder) == before


def test_another_reporting_interval_makes_nothing_again(job: Job, candidate: Outcome) -> None:
    """What is trained does not depend on how often it is looked at or saved."""

    record = quietly(job, candidate)
    folder = model_folder(job, candidate)
    before = stamps(folder)
    assert quietly(changed(job, 0, settings=replace(DistillSettings(3), report_every=1)), candidate) == record
    assert stamps(folder) == before


def test_more_steps_or_other_targets_make_another_model(job: Job, candidate: Outcome) -> None:
    """In another folder: the one before stays as it is, with whatever its user has put beside it."""
    quietly(job, candidate)
    folder = model_folder(job, candidate)
    (folder / "note.txt").write_text("mine")
    before = stamps(folder)
    others = [changed(job, 0, settings=DistillSettings(4)), changed(job, 1, settings=DistillSettings(3))]
    others += [changed(job, 1, targets=replace(job.stretches[1].targets, key="other clips"))]
    others += [replace(job, unseen=replace(job.unseen, key="other unseen clips"))]
    for other in others:
        record = quietly(other, candidate)
        assert record == read_record(model_folder(other, candidate)) != read_record(folder)
        assert stamps(folder) == before
    assert len({folder, *(model_folder(other, candidate) for other in others)}) == 5
    assert record.evaluation.targets == record.unseen == "other unseen clips"


def test_latents_of_the_users_make_another_model_whose_card_says_so(job: Job, candidate: Outcome) -> None:
    record = quietly(job, candidate)
    assert "latents" not in job.distillation() and "without a video" not in render_card(record)
    one, other = (LatentClip(Path("a.pt"), 0, 1, job.teacher.spec, (3, 4, 4), content) for content in ("one", "other"))
    jobs = [job, *(replace(job, latents=latents) for latents in ((one,), (other,), (one, other)))]
    assert len({model_folder(each, candidate) for each in jobs}) == 4
    found = jobs[3].distillation()
    assert found["latents"]["count"] == 2
    card = render_card(replace(record, distillation=found))
    assert f"and 2 latents given without a video (SHA-256 {found['latents']['sha256'][:16]}), by the recipe" in card


def test_a_finished_model_leaves_no_checkpoint_and_nothing_temporary(job: Job, candidate: Outcome) -> None:
    quietly(job, candidate)
    assert list((job.run.folder / "finalize").iterdir()) == []
    assert not [path for path in job.out.rglob("*") if path.name.startswith(".")]


def test_phases_follow_each_other(job: Job, candidate: Outcome, tmp_path: Path) -> None:
    """The second begins where the first ended; cut off anywhere, they end with the same weights."""
    console = Console(file=io.StringIO())
    (tmp_path / "run").mkdir()
    fresh = replace(job, run=replace(job.run, folder=tmp_path / "run"))
    whole = distil_in_full(console, fresh, candidate)
    assert [step for step, _ in whole.curve][-2:] == [3, 5]
    first, second = (
        path for path in sorted((tmp_path / "run/finalize").iterdir(), key=lambda path: path.stat().st_mtime)
    )
    single = distil_in_full(console, replace(fresh, stretches=fresh.stretches[:1]), candidate)
    assert not equal(single.decoder, whole.decoder)
    second.unlink()
    resumed = distil_in_full(console, fresh, candidate)
    assert equal(resumed.decoder, whole.decoder) and resumed.curve == whole.curve and first.exists()


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Every bit of every weight."""
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def test_a_damaged_model_is_not_called_saved(job: Job, candidate: Outcome) -> None:
    """It is refused before anything is distilled, and stays as it is."""
    other = replace(job, out=job.out / "damaged")
    quietly(other, candidate)
    folder = model_folder(other, candidate)
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    before = stamps(folder)
    assert "is not what was saved there" in refusal(lambda: quietly(other, candidate))
    weights.unlink()
    assert "has lost its weights" in refusal(lambda: quietly(other, candidate))
    del before[weights]
    assert stamps(folder) == before


@pytest.mark.parametrize("what", ["file", "folder", "model"])
def test_what_is_not_the_model_that_belongs_there_is_not_replaced(what: str, job: Job, candidate: Outcome) -> None:
    other = replace(job, out=job.out / f"taken by a {what}")
    folder = model_folder(other, candidate)
    other.out.mkdir(parents=True)
    if what == "file":
        folder.write_text("mine")
    elif what == "folder":
        folder.mkdir()
        (folder / "note.txt").write_text("mine")
    else:
        quietly(job, candidate)
        shutil.copytree(model_folder(job, candidate), folder)
        numbers = read_json(folder / "evaluation.json")
        write_json(folder / "evaluation.json", {**numbers, "unseen": "others"})
    before = sorted(other.out.rglob("*"))
    assert refusal(lambda: finished_model(other, candidate)).startswith(f"{folder} is not the model that belongs there")
    assert sorted(other.out.rglob("*")) == before


def test_models_are_not_written_into_a_model_or_below_a_file(job: Job, candidate: Outcome) -> None:
    quietly(job, candidate)
    folder = model_folder(job, candidate)
    assert f"{folder} is itself a model" in refusal(lambda: check_out(folder))
    assert f"{folder} is itself a model" in refusal(lambda: check_out(folder / "more"))
    assert "is a file, not a folder" in refusal(lambda: check_out(folder / "README.md"))
    check_out(job.out / "others")


def test_a_teacher_too_large_for_its_device_is_not_measured(job: Job) -> None:
    console = Console(file=io.StringIO(), width=200)
    settings = replace(job.run.settings, height=65536, width=65536)
    assert teacher_latency(console, replace(job, run=replace(job.run, settings=settings))) is None
    assert isinstance(console.file, io.StringIO)
    assert "the teacher's latency is not measured: 65536x65536 x 5 frames need about" in console.file.getvalue()
    assert teacher_latency(console, job) is not None


def test_a_candidate_of_which_no_sample_fits_into_memory_is_told(job: Job, candidate: Outcome) -> None:
    """In training or in what follows; nothing of it is left but its checkpoint, if it came so far."""
    other = replace(job, out=job.out / "too large")
    with (
        limited(get_block("conv3d_stem"), 0),
        pytest.raises(DoesNotFitError, match="cpu is out of memory with a single"),
    ):
        quietly(other, candidate)
    assert not model_folder(other, candidate).exists()
    console = Console(file=io.StringIO(), width=200)
    with limited(get_block("conv3d_stem"), 1):
        assert finish(console, other, candidate).parameters == 37036
    assert isinstance(console.file, io.StringIO)
    assert "the phase 'frames' computed 1 of 4 samples at a time: memory is too small" in console.file.getvalue()


def test_a_teacher_that_runs_out_of_memory_after_all_is_not_measured(job: Job) -> None:
    console = Console(file=io.StringIO(), width=200)
    with limited(nn.Conv3d, 0):
        assert teacher_latency(console, job) is None
    assert isinstance(console.file, io.StringIO)
    assert "the teacher's latency is not measured: cpu is out of memory" in console.file.getvalue()
