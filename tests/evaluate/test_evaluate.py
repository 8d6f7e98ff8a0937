"""`python -m nas.evaluate`: its numbers are those of whole decodes, whatever way clips take through the decoders."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nas import metrics
from nas.data.clips import Clip, to_video
from nas.evaluate.contestants import Contestants, Student, open_contestants
from nas.evaluate.judge import judge
from nas.evaluate.material import clip_material, view
from nas.evaluate.settings import PROTOCOLS, Settings
from nas.machine.memory import peak_bytes
from nas.metrics import VIDEO_RANGE
from nas.metrics.i3d import I3D, for_i3d, load_i3d
from nas.model.folder import load_model
from nas.model.pipeline_config import known_scaling
from tests.support.judged_models import Stage, make_stage, run_evaluate
from tests.support.small_decoders import SPECS
from tests.support.videos import make_frames, write_video

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return make_stage(tmp_path_factory.mktemp("stage"))


def evaluated(stage: Stage, out: Path, *arguments: object) -> dict[str, Any]:
    status, _, err = run_evaluate(*arguments, "--teacher-weights", stage.weights, "--out", out)
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return found


def decoded(stage: Stage, folder: Path, video: Tensor) -> tuple[Tensor, Tensor]:
    """The frames of the teacher and of a student for a whole clip."""
    latents = stage.teacher.encode(video)
    with torch.no_grad():
        (frames,) = load_model(folder).decode(latents, return_dict=False)
    return stage.teacher.decode(latents), frames


def numbers(prediction: Tensor, reference: Tensor) -> dict[str, float]:
    return {
        "psnr": metrics.psnr(prediction, reference, VIDEO_RANGE).item(),
        "ssim": metrics.ssim(prediction, reference, VIDEO_RANGE).item(),
        "sharpness": metrics.sharpness(prediction, reference, VIDEO_RANGE).item(),
        "detail_error": metrics.detail_error(prediction, reference, VIDEO_RANGE).item(),
        "delta_e": metrics.delta_e(prediction, reference, VIDEO_RANGE).item(),
        "flicker": metrics.frame_difference_error(prediction, reference, VIDEO_RANGE).mean().item(),
    }


def test_streams_are_judged_as_whole_decodes_are(stage: Stage, tmp_path: Path) -> None:
    found = evaluated(stage, tmp_path / "out", stage.first, stage.second, "--clips", stage.clips)
    assert found["streamed"] and [clip["frames"] for clip in found["clips"]] == [[13], [9]]
    videos = [to_video(make_frames(frames, video=video)[:kept]) for video, frames, kept in ((1, 15, 13), (2, 9, 9))]
    psnr: list[list[float]] = []
    for model, folder in zip(found["models"], (stage.first, stage.second), strict=True):
        clips = [(video, *decoded(stage, folder, video)) for video in videos]
        for clip, teacher, (video, theirs, ours) in zip(model["clips"], found["teacher"]["clips"], clips, strict=True):
            for name, value in numbers(ours, theirs).items():
                assert clip["to_teacher"][name] == pytest.approx(value, abs=1e-3), name
            for name, value in numbers(ours, video).items():
                assert clip["to_truth"][name] == pytest.approx(value, abs=1e-3), name
            for name, value in numbers(theirs, video).items():
                assert teacher["to_truth"][name] == pytest.approx(value, abs=1e-3), name
            assert teacher["to_teacher"] is None
        psnr.append([clip["to_teacher"]["psnr"] for clip in model["clips"]])
        assert model["to_teacher"]["psnr"]["mean"] == pytest.approx(np.mean(psnr[-1]))
    first, second = found["models"]
    assert first["difference_to_first_model"] is None
    difference = second["difference_to_first_model"]["to_teacher"]["psnr"]
    assert difference["mean"] == pytest.approx(np.mean(psnr[1]) - np.mean(psnr[0])) and difference["clips"] == 2
    flicker = [clip["to_truth"]["flicker"] for each in (second, found["teacher"]) for clip in each["clips"]]
    ratio = second["flicker_relative_to_teacher"]["mean"]
    assert ratio == pytest.approx((flicker[0] / flicker[2] + flicker[1] / flicker[3]) / 2)
    assert any(line.startswith("rFVD") for line in found["not_measured"])


def test_rfvd_is_taken_where_the_network_is_given(stage: Stage, tmp_path: Path) -> None:
    """Of the clips that are long enough; in the table, too."""
    torch.manual_seed(0)
    torch.save(I3D().state_dict(), tmp_path / "i3d.pt")
    given = (stage.first, "--clips", stage.clips, "--i3d", tmp_path / "i3d.pt", "--teacher-weights", stage.weights)
    status, printed, err = run_evaluate(*given, "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    network, features = load_i3d(tmp_path / "i3d.pt"), []
    for video, kept in ((1, 13), (2, 9)):
        film = to_video(make_frames(15 if video == 1 else 9, video=video)[:kept])
        rows = [for_i3d(each.clamp(-1, 1), VIDEO_RANGE) for each in (film, *decoded(stage, stage.first, film))]
        features.append(network(torch.cat(rows)))
    films, theirs, ours = torch.stack(features, dim=1)
    expected = {"clips": 2, "frames": 17}
    teachers, student = found["teacher"]["rfvd"], found["models"][0]["rfvd"]
    assert teachers == expected | {"value": pytest.approx(metrics.frechet_distance(theirs, films), rel=1e-2)}
    assert student == expected | {"value": pytest.approx(metrics.frechet_distance(ours, films), rel=1e-2)}
    assert "rFVD of 2 clips" in printed and not any(line.startswith("rFVD") for line in found["not_measured"])


def test_a_model_that_looks_ahead_is_judged_on_whole_clips(stage: Stage, tmp_path: Path) -> None:
    found = evaluated(stage, tmp_path / "out", stage.bidirectional, "--clips", stage.clips)
    assert not found["streamed"]
    video = to_video(make_frames(15, video=1)[:13])
    theirs, ours = decoded(stage, stage.bidirectional, video)
    clip = found["models"][0]["clips"][0]["to_teacher"]
    assert clip["psnr"] == pytest.approx(metrics.psnr(ours, theirs, VIDEO_RANGE).item(), abs=1e-3)


def test_longer_clips_become_several_decodes(stage: Stage, tmp_path: Path) -> None:
    found = evaluated(stage, tmp_path / "out", stage.first, "--clips", stage.clips, "--frames", 6, "--crop", 24)
    assert [clip["frames"] for clip in found["clips"]] == [[5, 5, 5], [5]]
    assert {(clip["height"], clip["width"]) for clip in found["clips"]} == {(24, 24)}
    video = to_video(make_frames(15, video=1))[..., 4:28, 12:36]
    psnr = []
    for part in torch.split(video, 5, dim=2):
        theirs, ours = decoded(stage, stage.first, part)
        psnr.append(metrics.psnr(ours, theirs, VIDEO_RANGE).item())
    clip = found["models"][0]["clips"][0]
    assert clip["crops"] == 3 and clip["to_teacher"]["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)


def test_latents_of_a_diffusion_model(stage: Stage, tmp_path: Path) -> None:
    """Raw or normalised, they are judged against the teacher alone, each of a batch on its own."""
    spec, folder = stage.teacher.spec, tmp_path / "latents"
    scaling = known_scaling(spec, "wan")
    assert scaling is not None
    normalised = torch.randn(2, 16, 3, 3, 4, generator=torch.Generator().manual_seed(0))
    folder.mkdir()
    save_file({"latents": scaling.to_raw(normalised)}, folder / "raw.safetensors")
    np.save(tmp_path / "unit.npy", normalised.numpy())
    raw = evaluated(stage, tmp_path / "a", stage.first, "--latents", folder)
    unit = evaluated(stage, tmp_path / "b", stage.first, "--latents", tmp_path / "unit.npy", "--normalised")
    assert raw["latents"].endswith("raw") and unit["latents"].endswith("normalised")
    assert [clip["name"] for clip in raw["clips"]] == ["raw.safetensors[0]", "raw.safetensors[1]"]
    for found in (raw, unit):
        (model,) = found["models"]
        assert found["teacher"]["to_truth"] == model["to_truth"] == {} and model["clips"][0]["to_truth"] is None
        assert any("against the video" in line for line in found["not_measured"])
        for clip, latents in zip(model["clips"], torch.split(scaling.to_raw(normalised), 1), strict=True):
            with torch.no_grad():
                (frames,) = load_model(stage.first).decode(latents, return_dict=False)
            expected = metrics.psnr(frames, stage.teacher.decode(latents), VIDEO_RANGE).item()
            assert clip["to_teacher"]["psnr"] == pytest.approx(expected, abs=1e-3)


def test_noise_is_the_same_each_time_and_has_the_scale_that_is_asked_for(stage: Stage, tmp_path: Path) -> None:
    who = open_contestants([stage.first], stage.weights, CPU)
    clip = Clip(stage.clips / "a.mkv", 0, 13)

    def latents(noise: float) -> Tensor:
        (material,) = clip_material([clip], Settings(noise=noise), who)
        chunks = [list(decode) for decode in material.decodes(who)]
        assert all((video is None) == (noise > 0) for video, _ in chunks[0])
        return torch.cat([each for _, each in chunks[0]], dim=2)

    clean, noisy = latents(0.0), latents(0.5)
    assert torch.equal(noisy, latents(0.5))
    added = (noisy - clean).std(dim=(0, 2, 3, 4)) / torch.tensor(stage.teacher.spec.std)
    assert added.tolist() == pytest.approx([0.5] * 16, rel=0.25)
    found = evaluated(stage, tmp_path / "out", stage.first, "--clips", stage.clips, "--noise", 0.5)
    assert found["models"][0]["to_truth"] == {} and "noise of 0.5" in found["latents"]


def test_memory_does_not_grow_with_the_length_of_a_stream(stage: Stage, tmp_path: Path) -> None:
    who = open_contestants([stage.first], stage.weights, CPU)
    write_video(tmp_path / "long.mkv", 37)
    peaks = []
    for frames in (13, 37):
        (material,) = clip_material([Clip(tmp_path / "long.mkv", 0, frames)], Settings(), who)
        peaks.append(peak_bytes(lambda material=material: judge(who, material)))  # type: ignore[misc]
    assert peaks[1] < 1.05 * peaks[0]


@pytest.mark.parametrize(("name", "side"), [("ucf101", 256), ("davis", 512)])
def test_protocols_fix_frames_size_and_crop(name: str, side: int, stage: Stage) -> None:
    who = open_contestants([stage.first], stage.weights, CPU)
    settings = PROTOCOLS[name]
    (material,) = clip_material([Clip(stage.clips / "a.mkv", 0, 60)], settings, who)
    assert material.num_frames == 17 and material.facts()["frames"] == [17]
    for height, width in ((240, 320), (1080, 1920)):
        shown = view(np.zeros((1, height, width, 3), np.uint8), settings, stage.teacher.spec)
        assert shown.shape == (1, 3, 1, side, side)
    ramp = np.tile((np.arange(320) // 2).astype(np.uint8).reshape(1, 1, 320, 1), (1, 240, 1, 3))
    middle = view(ramp, settings, stage.teacher.spec)[0, 0, 0, side // 2]
    assert (middle[side // 2].item() + 1) * 127.5 == pytest.approx(80, abs=1)


def test_frames_are_cut_to_the_grid_of_the_latents() -> None:
    spec = SPECS["128ch-8x32x32-leading"]
    assert view(np.zeros((1, 70, 99, 3), np.uint8), Settings(), spec).shape == (1, 3, 1, 64, 96)
    assert view(np.zeros((1, 20, 40, 3), np.uint8), Settings(), spec).shape == (1, 3, 1, 32, 64)


def test_pictures_show_everybody(stage: Stage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, text, err = run_evaluate(
        stage.first, stage.second, "--clips", stage.clips, "--teacher-weights", stage.weights, "--out", out
    )
    assert (status, err) == (0, "")
    names = [
        f"{name}-{which}.{kind}" for name in ("first", "second") for which in ("median", "worst") for kind in KINDS
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted(["evaluation.json", *names])
    for name in names:
        with av.open(str(out / name)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        if name.endswith("png"):
            # Video, teacher, student, difference, with gaps of four pixels; four frames of each.
            assert [frame.shape for frame in frames] == [(4 * 32 + 12, 4 * 48 + 12, 3)]
            film = make_frames(15, video=1)[0], make_frames(9, video=2)[0]
            assert any(np.array_equal(frames[0][:32, :48], first) for first in film)
        else:
            assert len(frames) in (13, 9) and frames[0].shape == (32, 4 * 48 + 12, 3)
    for words in ("to the teacher", "to the video", "second - first", "PSNR, dB", "not measured: rFVD", "a.mkv"):
        assert words in text
    again = evaluated(stage, out, stage.first, "--clips", stage.clips)
    assert len(again["models"]) == 1 and not list(out.glob("second*"))
    assert not [path for path in tmp_path.iterdir() if path != out]


KINDS = ("png", "mp4")


def test_without_a_record_the_folder_has_its_evaluation_inside(stage: Stage) -> None:
    status, text, err = run_evaluate(stage.second, "--clips", stage.clips, "--teacher-weights", stage.weights)
    assert (status, err) == (0, "") and (stage.second / "evaluation" / "evaluation.json").is_file()
    assert str(stage.second / "evaluation") in text
    load_model(stage.second)


def test_one_teacher_stands_for_all_students(stage: Stage) -> None:
    who = open_contestants([stage.first, stage.bidirectional], stage.weights, CPU)
    assert isinstance(who, Contestants) and not who.streamed
    assert all(isinstance(student, Student) and student.record is None for student in who.students)
    assert open_contestants([stage.first], stage.weights, CPU).streamed
