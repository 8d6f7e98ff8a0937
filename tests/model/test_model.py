"""Finished models: in and out of diffusers' format, whole or in a stream, finished and published."""

import errno
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.splits import open_clips
from nas.evaluation.quality import evaluate
from nas.finalize.finish import Finisher
from nas.latency import Workload, open_device
from nas.model import TurboVAED
from nas.model import folder as model_folder
from nas.model.folder import read_numbers, write_model_folder
from nas.study.outcomes import Outcome
from nas.study.run import Run, RunSettings
from nas.teachers import load_teacher
from nas.terminal.errors import UserError
from search_spaces import Decoder, DecoderConfig
from tests.support.small_targets import BIDIRECTIONAL, CONFIG, SPEC, build_student, make_targets


def make_model(config: DecoderConfig = CONFIG, gain: float = 1.0) -> TurboVAED:
    """With the weights of `build_student`, those of the head times `gain`."""
    model: TurboVAED = TurboVAED(config.to_dict(), "formula").eval()
    weights = build_student(config=config).state_dict()
    model.decoder.load_state_dict(weights | {"head.conv.weight": gain * weights["head.conv.weight"]})
    return model


def frames_of(model: TurboVAED, latents: Tensor) -> Tensor:
    with torch.no_grad():
        output = model.decode(latents)
    assert not isinstance(output, tuple)
    frames: Tensor = output.sample
    return frames


@pytest.fixture
def latents() -> Tensor:
    return make_targets().split("test").batch([0, 1]).latents


RELOAD = """
    import json, sys
    from pathlib import Path
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(int(sys.argv[2]))
    folder = Path(sys.argv[1])
    latents = torch.load(folder / "latents.pt", weights_only=True)

    from search_spaces import Decoder, DecoderConfig
    config = json.loads((folder / "model/config.json").read_text())
    architecture = next(value for value in config.values() if isinstance(value, dict))
    plain = Decoder(DecoderConfig.from_dict(architecture))
    weights = load_file(folder / "model/diffusion_pytorch_model.safetensors")
    plain.load_state_dict({name.removeprefix("decoder."): weights[name] for name in weights})
    heavy = {"optuna", "diffusers", "coremltools", "lpips", "nas"} & set(sys.modules)
    assert not heavy, heavy

    from nas.model import TurboVAED
    model = TurboVAED.from_pretrained(folder / "model")
    assert not model.training
    with torch.no_grad():
        frames = [model.decode(latents).sample, plain(latents).clamp(-1, 1)]
    torch.save(frames, folder / "frames.pt")
"""


def test_a_new_process_gives_the_same_frames(tmp_path: Path, latents: Tensor) -> None:
    """By diffusers' way of loading, and with blocks and search_spaces alone."""
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    torch.save(latents, tmp_path / "latents.pt")
    arguments = (str(tmp_path), str(torch.get_num_threads()))
    subprocess.run([sys.executable, "-c", textwrap.dedent(RELOAD), *arguments], check=True, cwd=tmp_path)
    for frames in torch.load(tmp_path / "frames.pt", weights_only=True):
        assert torch.equal(frames, frames_of(model, latents))


def test_its_config_is_plain_json(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    architecture = next(value for value in config.values() if isinstance(value, dict))
    assert DecoderConfig.from_dict(architecture) == CONFIG
    assert config["teacher"] == "formula" and config["_class_name"] == "TurboVAED"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_decode_has_both_of_diffusers_forms(latents: Tensor) -> None:
    model = make_model()
    frames = frames_of(model, latents)
    with torch.no_grad():
        plain, wanted = model.decode(latents, return_dict=False), model.decoder(latents)
    assert isinstance(plain, tuple) and len(plain) == 1
    assert torch.equal(frames, plain[0]) and torch.equal(frames, wanted.clamp(-1, 1))
    assert frames.shape == (2, 3, 5, 16, 16)


def test_frames_stay_in_range(latents: Tensor) -> None:
    model = make_model(gain=100.0)
    for each in (frames_of(model, latents), torch.cat(list(model.stream([latents])), dim=2)):
        assert each.min() == -1 and each.max() == 1


def test_a_stream_gives_the_frames_of_one_decode(latents: Tensor) -> None:
    """However the latents are cut."""
    model = make_model()
    wanted = frames_of(model, latents)
    for cuts in (cuts for count in range(3) for cuts in combinations((1, 2), count)):
        chunks = [latents[:, :, start:end] for start, end in pairwise((0, *cuts, 3))]
        pieces = list(model.stream(chunks))
        assert len(pieces) == len(chunks)
        assert torch.allclose(torch.cat(pieces, dim=2), wanted, atol=1e-6), cuts


def test_two_streams_share_a_model(latents: Tensor) -> None:
    """And the mode of their computation stays inside."""
    model = make_model()
    wanted = frames_of(model, latents)
    streams = [model.stream(torch.split(latents[row : row + 1], 1, dim=2)) for row in (0, 1)]
    frames: list[list[Tensor]] = [[], []]
    for _ in range(3):
        for row in (0, 1):
            frames[row].append(next(streams[row]))
            assert not torch.is_inference_mode_enabled()
    for row in (0, 1):
        assert torch.allclose(torch.cat(frames[row], dim=2)[0], wanted[row], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (BIDIRECTIONAL, "only a causal decoder streams"),
        (replace(CONFIG, latents=replace(SPEC, frame_rule="leading_if_odd")), "cannot stream"),
    ],
)
def test_what_needs_the_whole_clip_refuses_to_stream(config: DecoderConfig, why: str, latents: Tensor) -> None:
    model = make_model(config)
    assert frames_of(model, latents).shape == (2, 3, 5, 16, 16)
    with pytest.raises(ValueError, match=why):
        next(model.stream([latents]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(dtype: torch.dtype, tmp_path: Path, latents: Tensor) -> None:
    """Half the bytes on disk, latents of any format go in, and the frames are those of float32 up to rounding."""
    model = make_model()
    wanted = frames_of(model, latents)
    model.save_pretrained(tmp_path / "whole")
    model.to(dtype).save_pretrained(tmp_path / "half")
    sizes = [(tmp_path / name / "diffusion_pytorch_model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    half = TurboVAED.from_pretrained(tmp_path / "half", torch_dtype=dtype)
    frames, streamed = frames_of(half, latents), torch.cat(list(half.stream([latents])), dim=2)
    assert frames.dtype == streamed.dtype == dtype
    assert (frames.float() - wanted).abs().mean() < 0.01
    assert torch.equal(frames, frames_of(half, latents.to(dtype)))


class Numbers:
    """What the card asks of an evaluation."""

    psnr, psnr_first, ssim = 31.25, 30.5, 0.91234


TEXTS = ("teacher", "source", "licence", "summary", "temporal_mode", "budget", "device", "predicted", "measured")
CARD: dict[str, Any] = {
    "title": "A title {with braces}",
    "parameters": 22732,
    "gmacs": 1.25,
    **dict.fromkeys((*TEXTS, "clips", "unseen"), "some text"),
    **dict.fromkeys(("steps", "crops", "channels"), 4),
    **dict.fromkeys(("to_teacher", "to_truth", "of_teacher"), Numbers()),
}


def test_a_model_folder_holds_all_files(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "one"
    write_model_folder(folder, make_model(), {"parameters": 22732}, CARD)
    names = ["README.md", "config.json", "diffusion_pytorch_model.safetensors", "evaluation.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert read_numbers(folder) == {"parameters": 22732}
    assert read_numbers(folder.parent / "two") is None
    assert folder.stat().st_mode & 0o777 == 0o755
    card = (folder / "README.md").read_text()
    for text in ("| parameters | 22,732 |", "1.2 G", "31.25 dB", "0.9123", "A title {with braces}"):
        assert text in card


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failing", ["write_json", "write_bytes"])
def test_a_model_folder_is_complete_or_not_there(
    failing: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in the middle leaves what was there before and nothing else."""
    folder = tmp_path / "one"
    if existing:
        write_model_folder(folder, make_model(), {"version": 1}, CARD)
    before = {path.name: path.read_bytes() for path in folder.glob("*")}

    def full(path: Path, data: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(model_folder, failing, full)
        with pytest.raises(UserError, match="cannot write the model folder: the disk is full"):
            write_model_folder(folder, make_model(gain=2.0), {"version": 2}, CARD)
    assert list(tmp_path.iterdir()) == ([folder] if existing else [])
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
    write_model_folder(folder, make_model(gain=2.0), {"version": 2}, CARD)
    assert read_numbers(folder) == {"version": 2}
    assert list(tmp_path.iterdir()) == [folder]
    again = TurboVAED.from_pretrained(folder)
    latents = make_targets().split("test").batch([0]).latents
    assert torch.equal(frames_of(again, latents), frames_of(make_model(gain=2.0), latents))


@pytest.fixture(scope="module")
def finisher(tmp_path_factory: pytest.TempPathFactory) -> Finisher:
    """With the embedded teacher and clips, very small everything."""
    folder = tmp_path_factory.mktemp("finishing")
    teacher = load_teacher("wan-tiny")
    clips = open_clips(None, 9)
    clips = replace(clips, train=clips.train[:2], score=clips.score[:1])
    settings = TargetSettings(32, 9, train_crops=2, score_crops=1, test_crops=0, taps=teacher.tap_names[:1])
    judging = replace(settings, train_crops=0, score_crops=0, test_crops=1, taps=())
    run = RunSettings("wan-tiny", None, None, 30.0, "30ms", "iphone-16-pro", 64, 64, 5, "hybrid", 3, 0)
    return Finisher(
        console=Console(file=io.StringIO()),
        run=Run(folder / "run", run),
        teacher=teacher,
        training=open_targets(teacher, clips, settings, cache=folder),
        unseen=open_targets(teacher, clips, judging, cache=folder),
        phone=open_device("iphone-16-pro"),
        workload=Workload(64, 64, 5),
        clips="the embedded clips",
        steps=3,
        out=folder / "models",
    )


@pytest.fixture(scope="module")
def candidate(finisher: Finisher) -> Outcome:
    """As a search would have found it."""
    config = replace(CONFIG, latents=finisher.teacher.spec, stages=(*CONFIG.stages, CONFIG.stages[1]))
    latency = finisher.phone.latency(Decoder(config), config.latents, finisher.workload)
    return Outcome(7, config, latency, parameters=37036, kind="scored", score=21.0)


def test_finishing_makes_a_model_folder_once(finisher: Finisher, candidate: Outcome) -> None:
    row = finisher.finish(candidate)
    (folder,) = finisher.out.iterdir()
    model, numbers = TurboVAED.from_pretrained(folder), read_numbers(folder)
    assert numbers is not None and numbers["parameters"] == row.parameters == 37036
    assert numbers["latency_measured"]["kind"] == "measured" and numbers["latency_predicted"]["kind"] == "predicted"
    found = evaluate(lambda latents: frames_of(model, latents), finisher.unseen)
    assert row.evaluation.psnr_teacher == pytest.approx(found.psnr_teacher, abs=1e-4)
    card = (folder / "README.md").read_text()
    assert not re.search("[{}]|None|nan", card)
    assert f"{found.psnr_teacher:.2f} dB" in card and f"{found.ssim_truth:.4f}" in card
    assert "37,036" in card and "3 steps" in card and "predicted for iphone-16-pro" in card
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert finisher.finish(candidate) == row
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_more_steps_or_other_targets_make_it_again(finisher: Finisher, candidate: Outcome) -> None:
    """Also where the checkpoint of the earlier distillation is still there."""
    finisher.finish(candidate)
    folder = finisher.out / f"wan-tiny-{candidate.config.digest()}"
    replace(finisher, steps=4).finish(candidate)
    assert (read_numbers(folder) or {})["distillation"]["steps"] == 4
    replace(finisher, training=replace(finisher.training, key="other clips")).finish(candidate)
    assert (read_numbers(folder) or {})["targets"] == "other clips"


def test_numbers_of_other_unseen_clips_are_not_reused(finisher: Finisher, candidate: Outcome) -> None:
    finisher.finish(candidate)
    row = replace(finisher, unseen=replace(finisher.unseen, key="other unseen clips")).finish(candidate)
    assert row.evaluation.targets == "other unseen clips"


def test_a_teacher_too_large_for_this_machine_is_not_measured(finisher: Finisher) -> None:
    console = Console(file=io.StringIO(), width=200)
    huge = replace(finisher, workload=Workload(65536, 65536, 5), console=console)
    assert huge._teacher_measured() is None
    assert isinstance(console.file, io.StringIO)
    assert "the teacher's latency is not measured: 65536x65536 x 5 frames need about" in console.file.getvalue()
    assert finisher._teacher_measured() is not None
