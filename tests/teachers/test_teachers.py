"""The teachers: the embedded one against diffusers' own class, taps, grids, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from nas.data.clips import read_frames, to_video
from nas.data.splits import open_clips
from nas.machine.torchvision_operators import import_torchvision
from nas.metrics import VIDEO_RANGE, psnr
from nas.teachers import Teacher, list_teachers, load_teacher, register_teacher
from nas.teachers.wan import WanTeacher
from nas.teachers.weights import WeightFiles
from nas.terminal.errors import UserError

FOLDER = Path(__file__).parents[2] / "nas" / "assets" / "wan_tiny"
WEIGHTS = FOLDER / "diffusion_pytorch_model.safetensors"
SHAPES = [(1, 16, 24), (5, 24, 16), (9, 32, 48), (17, 16, 16)]
"""Frames, height and width; latents of 1, 2, 3 and 5 frames."""


@pytest.fixture(scope="module")
def tiny() -> Teacher:
    return load_teacher("wan-tiny")


@pytest.fixture(scope="module")
def original() -> Any:
    """The same weights in diffusers' own class, loaded by diffusers."""
    import_torchvision()
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(FOLDER, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()


def video_of(frames: int, height: int, width: int, batch: int = 1) -> Tensor:
    """Smooth moving colours, some of them at the ends of the range."""
    t, y, x = (torch.arange(size).float() for size in (frames, height, width))
    phase = t.view(-1, 1, 1) * 0.3 + y.view(-1, 1) * 0.21 + x * 0.13
    colours = torch.stack([torch.sin(phase), torch.cos(1.3 * phase), torch.sin(phase * 0.7 + 1)])
    return torch.stack([colours.roll(index, 0) for index in range(batch)]).mul(1.3).clamp(-1, 1)


def test_the_embedded_teacher_is_small_and_in_half_precision() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 6_000_000
    with safe_open(WEIGHTS, framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_model_is_frozen_in_float32_and_loaded_late() -> None:
    teacher = load_teacher("wan-tiny")
    assert len(teacher.weights_hash) == 64 and teacher.describe() and teacher.taps
    assert "model" not in vars(teacher)
    parameters = list(teacher.model.parameters())
    assert teacher.decoder_parameters == sum(
        each.numel() for each in teacher.model.get_submodule("decoder").parameters()
    )
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in parameters)
    assert not teacher.model.training


def test_geometry_is_that_of_wan_21(tiny: Teacher) -> None:
    assert (tiny.spec.channels, tiny.spec.spatial, tiny.spec.temporal) == (16, 8, 4)
    assert tiny.spec.frame_rule == "leading" and tiny.spec.causal
    config = json.loads((FOLDER / "config.json").read_text())
    assert tiny.spec.mean == tuple(config["latents_mean"]) and tiny.spec.std == tuple(config["latents_std"])


@pytest.mark.usefixtures("plain_convolutions")
@pytest.mark.parametrize("shape", SHAPES)
def test_videos_go_to_latents_and_back(shape: tuple[int, int, int], tiny: Teacher, original: Any) -> None:
    """Bit by bit what diffusers' own class does, and nothing outside [-1, 1]."""
    frames, height, width = shape
    video = video_of(*shape)
    latents = tiny.encode(video)
    assert latents.shape == (1, *tiny.spec.latent_shape(*shape))
    assert latents.shape == (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
    assert torch.equal(latents, original.encode(video).latent_dist.mode())
    decoded = tiny.decode(latents)
    assert decoded.shape == video.shape
    assert torch.equal(decoded, original.decode(latents).sample)
    assert torch.equal(tiny.encode(video), latents)


def test_with_a_generator_latents_are_a_sample_of_the_encoders_distribution(tiny: Teacher, original: Any) -> None:
    video = video_of(5, 16, 24)
    found = [tiny.encode(video, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    distribution = original.encode(video).latent_dist
    wanted = distribution.sample(torch.Generator().manual_seed(3))
    assert torch.equal(found[0], found[1]) and torch.allclose(found[0], wanted, atol=1e-5)
    assert not torch.equal(found[0], found[2]) and not torch.equal(found[0], tiny.encode(video))


def test_frames_are_clamped(tiny: Teacher) -> None:
    latents = 30 * torch.randn(1, 16, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    for decoded in (tiny.decode(latents), tiny.decode_with_features(latents, ())[0]):
        assert float(decoded.max()) == 1 and float(decoded.min()) == -1


def test_the_embedded_teacher_reconstructs(tiny: Teacher) -> None:
    """On clips that it was not trained on; far below what it reaches on average, far above what broken weights do."""
    for clip, least in zip(open_clips(None, 17).test, (20, 32), strict=True):
        video = to_video(read_frames(clip, 0, 5))[..., 96:160, 96:160]
        assert float(psnr(tiny.decode(tiny.encode(video)), video, VIDEO_RANGE)) > least, clip.name


def test_members_of_a_batch_do_not_mix(tiny: Teacher) -> None:
    video = video_of(5, 16, 24, batch=2)
    latents = tiny.encode(video)
    for index in range(2):
        alone = tiny.encode(video[index : index + 1])
        assert torch.allclose(latents[index : index + 1], alone, atol=1e-5)
        assert torch.allclose(tiny.decode(latents)[index : index + 1], tiny.decode(alone), atol=1e-5)
    assert float((latents[0] - latents[1]).abs().max()) > 0.1


def test_the_first_frames_do_not_depend_on_later_ones(tiny: Teacher) -> None:
    """The spec says that the teacher is causal."""
    video = video_of(9, 16, 16)
    latents = tiny.encode(video)
    assert torch.allclose(tiny.encode(video[:, :, :5]), latents[:, :, :2], atol=1e-5)
    assert torch.allclose(tiny.decode(latents[:, :, :2]), tiny.decode(latents)[:, :, :5], atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_taps_say_what_the_features_are(shape: tuple[int, int, int], tiny: Teacher) -> None:
    latents = torch.zeros(1, *tiny.spec.latent_shape(*shape))
    features = tiny.features(latents, tiny.tap_names)
    assert tuple(features) == tiny.tap_names == tuple(tiny.taps)
    assert tiny.tap_names == ("mid_block", "up_blocks.0", "up_blocks.1", "up_blocks.2", "up_blocks.3")
    t, h, w = latents.shape[2:]
    for name, tap in tiny.taps.items():
        grid = (tap.temporal * (t - 1) + 1, tap.spatial * h, tap.spatial * w)
        assert features[name].shape == (1, tap.channels, *grid), name
    assert [(tap.temporal, tap.spatial) for tap in tiny.taps.values()] == [(1, 1), (2, 2), (4, 4), (4, 8), (4, 8)]


@pytest.mark.usefixtures("plain_convolutions")
def test_features_are_what_hooks_on_the_original_class_see(tiny: Teacher, original: Any) -> None:
    latents = tiny.encode(video_of(9, 16, 24))
    seen: dict[str, list[Tensor]] = {name: [] for name in tiny.tap_names}
    modules = [(original.decoder.mid_block, "mid_block")]
    modules += [(block, f"up_blocks.{index}") for index, block in enumerate(original.decoder.up_blocks)]
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen[name].append(output))
        for module, name in modules
    ]
    frames = original.decode(latents).sample
    for handle in handles:
        handle.remove()
    ours, features = tiny.decode_with_features(latents, tiny.tap_names)
    assert torch.equal(ours, frames)
    for name in tiny.tap_names:
        assert len(seen[name]) == 3, "the class decodes one latent frame at a time"
        assert torch.equal(features[name], torch.cat(seen[name], dim=2)), name
        assert float(features[name].std()) > 0


def test_taps_leave_nothing_behind(tiny: Teacher) -> None:
    latents = torch.zeros(1, 16, 2, 2, 2)
    first = tiny.features(latents, ("up_blocks.1",))
    assert set(first) == {"up_blocks.1"}
    assert torch.equal(tiny.features(latents, ("up_blocks.1",))["up_blocks.1"], first["up_blocks.1"])
    assert not any(module._forward_hooks for module in tiny.model.modules())
    with pytest.raises(UserError, match="16 channels"):
        tiny.features(torch.zeros(1, 15, 2, 2, 2), ("mid_block",))
    assert not any(module._forward_hooks for module in tiny.model.modules())


@pytest.mark.usefixtures("plain_convolutions")
def test_decoding_module_and_its_skeleton(tiny: Teacher) -> None:
    latents = tiny.encode(video_of(5, 16, 24))
    assert torch.equal(tiny.decoding()(latents), tiny.decode(latents))
    outline = tiny.skeleton_decoding()(latents.to("meta"))
    assert outline.is_meta and outline.shape == (1, 3, 5, 16, 24)


@pytest.mark.parametrize(("name", "near"), [("wan-tyni", "wan-tiny"), ("wann", "wan"), ("WAN-tiny", "wan-tiny")])
def test_an_unknown_teacher_names_the_near_one(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f"unknown teacher '{name}': did you mean '{near}'") as caught:
        load_teacher(name)
    assert str(caught.value).endswith(f"known: {', '.join(list_teachers())}")
    assert {"wan", "wan-tiny"} <= set(list_teachers())


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'wan' is taken"):
        register_teacher("wan", lambda weights, device: load_teacher("wan-tiny"))


def test_an_unknown_tap_names_the_near_one(tiny: Teacher) -> None:
    with pytest.raises(
        UserError, match=r"unknown tap of wan-tiny 'up_block\.1': did you mean 'up_blocks\.1'"
    ) as caught:
        tiny.features(torch.zeros(1, 16, 1, 2, 2), ("mid_block", "up_block.1"))
    assert "mid_block, up_blocks.0" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((6, 16, 16), "6 frames do not fit .* nearest valid counts are 5 and 9"),
        ((5, 20, 16), "height must be a multiple of 8, got 20: the nearest are 16 and 24"),
        ((5, 16, 7), "width must be a multiple of 8, got 7: the nearest are 8 and 16"),
    ],
)
def test_a_size_off_the_grid_names_the_nearest_ones(shape: tuple[int, int, int], message: str, tiny: Teacher) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.encode(torch.zeros(1, 3, *shape))


def test_the_published_teacher_has_its_published_size() -> None:
    """Wan 2.1's configuration is the default one of the class."""
    teacher = WanTeacher("wan", "", "", WeightFiles.none({}), "cpu")
    assert teacher.decoder_parameters == 73_295_331
    assert (teacher.spec.channels, teacher.spec.spatial, teacher.spec.temporal) == (16, 8, 4)
    assert len(teacher.spec.mean) == len(teacher.spec.std) == 16
    assert teacher.describe() == "wan: AutoencoderKLWan, 16 channels, 4x8x8, decoder 73.30 M parameters"
    assert [tap.channels for tap in teacher.taps.values()] == [384, 192, 192, 96, 96]


def test_torchvision_without_its_operators(tmp_path: Path) -> None:
    """A torchvision that fails as the CUDA build does beside a CPU build of torch; in a process of its own."""
    package = tmp_path / "torchvision"
    package.mkdir()
    log = tmp_path / "imports"
    (package / "parts.py").write_text("")
    (package / "__init__.py").write_text(
        f"import pathlib, torch\n"
        f"pathlib.Path({str(log)!r}).open('a').write('x')\n"
        f"from torchvision import parts\n"
        f"torch.library.register_fake('torchvision::nms')(lambda dets, scores, iou_threshold: dets)\n"
        f"torch.library.register_fake('torchvision::qnms')(lambda dets, scores, iou_threshold: dets)\n"
    )
    code = (
        "from nas.machine.torchvision_operators import import_torchvision\n"
        "import_torchvision(); import_torchvision()\n"
        "import torchvision.parts; print('fine')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(FOLDER.parents[2])])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "fine\n" and done.stderr == ""
    assert log.read_text() == "xx", "imported once in vain, once with the operators declared, never again"


def test_another_failure_of_torchvision_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::roi_align does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(RuntimeError, match="roi_align"):
        import_torchvision()
