"""What only some of the teachers do: statistics, lossy tiles, a rule of parity, frames that are dropped."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nas.teachers import Teacher, load_teacher
from nas.terminal.errors import UserError
from tests.support.small_teachers import (
    CONFIGS,
    SAME_HERE,
    make_weights,
    open_original,
    open_small,
    random_latents,
    random_video,
)


def config_of(teacher: Teacher) -> dict[str, Any]:
    config: dict[str, Any] = dict(vars(teacher.skeleton)["_internal_dict"])
    return config


# Statistics of the latents: what a pipeline does to unit latents before it decodes, `z * std + mean`.


@pytest.mark.parametrize("factor", [0.25, 2.0])
@pytest.mark.parametrize("name", ["hunyuan", "hunyuan1.5", "cogvideox"])
def test_latents_that_are_divided_by_a_factor(name: str, factor: float, tmp_path: Path) -> None:
    spec = open_small(name, tmp_path, scaling_factor=factor).spec
    assert spec.mean == () and spec.std == (1 / factor,) * spec.channels


@pytest.mark.parametrize(("name", "factor"), [("hunyuan", 0.476986), ("hunyuan1.5", 1.03682), ("cogvideox", 0.7)])
def test_published_factors(name: str, factor: float, tmp_path: Path) -> None:
    spec = open_small(name, tmp_path).spec
    assert spec.std == pytest.approx((1 / factor,) * spec.channels)


@pytest.mark.parametrize("name", ["wan", "wan2.2"])
def test_statistics_of_wan_are_in_its_configuration(name: str, tmp_path: Path) -> None:
    teacher = open_small(name, tmp_path)
    config = config_of(teacher)
    assert teacher.spec.mean == tuple(config["latents_mean"]) and teacher.spec.std == tuple(config["latents_std"])
    assert len(teacher.spec.mean) == len(set(teacher.spec.mean)) == teacher.spec.channels


@pytest.mark.parametrize("name", ["ltx", "ltx2"])
def test_statistics_of_ltx_are_in_its_weights(name: str, tmp_path: Path) -> None:
    teacher = open_small(name, tmp_path, scaling_factor=0.5)
    file = load_file(tmp_path / name / "diffusion_pytorch_model.safetensors")
    assert teacher.spec.mean == tuple(file["latents_mean"].tolist())
    assert teacher.spec.std == pytest.approx((file["latents_std"] / 0.5).tolist())
    assert "model" not in vars(teacher)


def test_statistics_of_mochi_are_scaled(tmp_path: Path) -> None:
    teacher = open_small("mochi", tmp_path, scaling_factor=0.5)
    config = config_of(teacher)
    assert teacher.spec.mean == tuple(config["latents_mean"]) and len(set(teacher.spec.mean)) == 12
    assert teacher.spec.std == pytest.approx([std / 0.5 for std in config["latents_std"]])


def test_statistics_of_cosmos_are_averaged_over_latent_frames(tmp_path: Path) -> None:
    """Its pipeline views them as channels by latent frames."""
    teacher = open_small("cosmos", tmp_path)
    config = config_of(teacher)
    for values, published in ((teacher.spec.mean, "latents_mean"), (teacher.spec.std, "latents_std")):
        per_frame = torch.tensor(config[published]).view(16, -1)
        assert per_frame.shape[1] > 1
        assert values == pytest.approx([fmean(row) for row in per_frame.tolist()], abs=1e-6)
    bare = open_small("cosmos", tmp_path / "bare", latents_mean=None, latents_std=None)
    assert bare.spec.mean == bare.spec.std == ()


def test_latents_of_video_dc_ae_are_not_scaled(tmp_path: Path) -> None:
    spec = open_small("video-dc-ae", tmp_path).spec
    assert spec.mean == spec.std == ()


# HunyuanVideo


@pytest.mark.usefixtures("plain_convolutions")
def test_hunyuan_does_not_decode_in_blended_pieces(tmp_path: Path) -> None:
    """As its class would by default as soon as there are more than 16 frames."""
    teacher = open_small("hunyuan", tmp_path)
    for num_latents in (4, 6):
        original = open_original("hunyuan", tmp_path / "hunyuan")
        video, latents = random_video(4 * num_latents - 3, 16, 24), random_latents(teacher.spec, num_latents)
        in_pieces = original.decode(latents).sample.clamp(-1, 1), original.encode(video).latent_dist.mode()
        original.use_framewise_decoding = original.use_framewise_encoding = False
        frames, encoded = teacher.decode(latents), teacher.encode(video)
        assert torch.equal(frames, original.decode(latents).sample.clamp(-1, 1))
        assert torch.equal(encoded, original.encode(video).latent_dist.mode())
        differs = [float((a - b).abs().max()) > 0.02 for a, b in zip((frames, encoded), in_pieces, strict=True)]
        assert differs == [num_latents == 6] * 2
        assert frames.shape == in_pieces[0].shape


# CogVideoX


@pytest.mark.parametrize(
    ("num_latents", "frames", "pieces"),
    [(1, 1, 1), (2, 8, 1), (3, 9, 1), (4, 16, 2), (5, 17, 2), (6, 24, 3), (7, 25, 3)],
)
def test_cogvideox_counts_frames_by_parity(num_latents: int, frames: int, pieces: int, tmp_path: Path) -> None:
    teacher = open_small("cogvideox", tmp_path)
    latents = random_latents(teacher.spec, num_latents)
    seen: list[Tensor] = []
    handle = teacher.find_tap(teacher.model, "up_blocks.0").register_forward_hook(lambda *call: seen.append(call[2][0]))
    assert teacher.decode(latents).shape == (1, 3, frames, 16, 24)
    handle.remove()
    assert len(seen) == pieces
    feature = teacher.features(latents, ("up_blocks.0",))["up_blocks.0"]
    assert torch.equal(feature, torch.cat(seen, dim=2))
    assert feature.shape[2] == (2 * num_latents if num_latents % 2 == 0 else 2 * num_latents - 1)
    assert teacher.encode(random_video(frames, 16, 24)).shape[2] == num_latents == teacher.spec.num_latents(frames)


def test_cogvideox_takes_the_first_latent_otherwise_when_their_number_is_odd(tmp_path: Path) -> None:
    teacher = open_small("cogvideox", tmp_path)
    latents = random_latents(teacher.spec, 6)
    even, odd = teacher.decode(latents), teacher.decode(latents[:, :, :5])
    assert float((even[:, :, :17] - odd).abs().max()) > 0.1
    assert torch.equal(teacher.decode(latents[:, :, :3]), odd[:, :, :9])
    assert torch.equal(teacher.decode(latents[:, :, :4]), even[:, :, :16])


# The others


def test_mochi_drops_the_first_frames_only_at_its_end(tmp_path: Path) -> None:
    teacher = open_small("mochi", tmp_path)
    original = open_original("mochi", tmp_path / "mochi")
    original.drop_last_temporal_frames = False
    latents = random_latents(teacher.spec, 3)
    seen: dict[str, Tensor] = {}
    for name in teacher.tap_names:
        module = original.decoder.get_submodule(name)
        module.register_forward_hook(lambda *call, name=name: seen.update({name: call[2][0]}))
    everything = original.decode(latents).sample
    assert everything.shape[2] == 18
    assert torch.allclose(teacher.decode(latents), everything[:, :, 5:].clamp(-1, 1), rtol=0, atol=1e-5)
    features = teacher.features(latents, teacher.tap_names)
    for name, per_latent in zip(teacher.tap_names, (1, 3, 6, 6), strict=True):
        assert seen[name].shape[2] == 3 * per_latent
        assert torch.allclose(features[name], seen[name][:, :, per_latent - 1 :], rtol=0, atol=1e-5), name


def test_mochi_decodes_one_latent_frame_at_a_time(tmp_path: Path) -> None:
    """As the class does it itself, its border would be padded with zeros: other frames."""
    teacher = open_small("mochi", tmp_path)
    latents, seen = random_latents(teacher.spec, 5), list[int]()
    handle = teacher.find_tap(teacher.model, "block_in").register_forward_hook(
        lambda *call: seen.append(call[2][0].shape[2])
    )
    frames = teacher.decode(latents)
    handle.remove()
    assert seen == [1] * 5
    assert torch.allclose(teacher.decode(latents[:, :, :2]), frames[:, :, :7], rtol=0, atol=1e-5)


def test_mochi_would_encode_otherwise_in_half_precision(tmp_path: Path) -> None:
    """Why it computes in float32 on a GPU: it takes sines of 256 pi times a pixel."""
    teacher, half = open_small("mochi", tmp_path), open_small("mochi", tmp_path / "half")
    half.dtype = torch.bfloat16
    video, latents = random_video(7, 16, 24), random_latents(teacher.spec, 2)
    assert float((half.encode(video) - teacher.encode(video)).abs().mean()) > 0.1 * float(teacher.encode(video).std())
    decoded = teacher.decode(latents)
    assert float((half.decode(latents) - decoded).abs().mean()) < 0.02 * float(decoded.std())


def test_wan22_unpatchifies_after_its_decoder(tmp_path: Path) -> None:
    teacher = open_small("wan2.2", tmp_path)
    config = json.loads((tmp_path / "wan2.2" / "config.json").read_text())
    assert (config["patch_size"], config["out_channels"], teacher.spec.spatial) == (2, 12, 16)
    assert [(tap.temporal, tap.spatial) for tap in teacher.taps.values()] == [(1, 1), (2, 2), (4, 4), (4, 8), (4, 8)]
    assert float(teacher.decode(10 * random_latents(teacher.spec, 2)).abs().max()) <= 1


def test_one_latent_frame_of_video_dc_ae_is_refused(tmp_path: Path) -> None:
    """It would become a single frame, where the frame rule, 4n, and every student make four."""
    teacher = open_small("video-dc-ae", tmp_path)
    original = open_original("video-dc-ae", tmp_path / "video-dc-ae")
    alone = random_latents(teacher.spec, 1)
    assert original.decode(alone).sample.shape[2] == 1 and teacher.spec.num_frames(1) == 4
    message = "^video-dc-ae decodes 2 latent frames at least .1 would not become 4 frames.: give 8 frames or more$"
    uses: list[Callable[[], object]] = [
        lambda: teacher.decode(alone),
        lambda: teacher.features(alone, teacher.tap_names[:1]),
        lambda: teacher.encode(random_video(4, 64, 64)),
        lambda: teacher.memory(4, 64, 64),
    ]
    for use in uses:
        with pytest.raises(UserError, match=message):
            use()
    for num_latents in (2, 3):
        frames = teacher.spec.num_frames(num_latents)
        assert teacher.decode(random_latents(teacher.spec, num_latents)).shape[2] == frames == 4 * num_latents


@pytest.mark.parametrize(
    "name", ["cosmos", *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(CONFIGS.keys() - {"cosmos"}))]
)
def test_the_first_use_in_a_process(name: str, tmp_path: Path) -> None:
    """Classes are imported by it, and the module of Cosmos makes tensors when it is imported."""
    folder = make_weights(name, tmp_path / name)
    teacher = load_teacher(name, folder)
    code = (
        "import sys, torch; from pathlib import Path; from nas.teachers import load_teacher\n"
        "teacher = load_teacher(sys.argv[1], Path(sys.argv[2])); latents = torch.load(sys.argv[3])\n"
        "torch.save(teacher.decode(latents), sys.argv[3])"
    )
    latents, file = random_latents(teacher.spec, 2), tmp_path / "tensor.pt"
    torch.save(latents, file)
    command = [sys.executable, "-c", code, name, str(folder), str(file)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    assert torch.allclose(torch.load(file), teacher.decode(latents), rtol=0, atol=1e-5)


def test_hashes_tell_weights_apart(tmp_path: Path) -> None:
    digests = {name: load_teacher(name, make_weights(name, tmp_path / "all" / name)).weights_hash for name in CONFIGS}
    assert len(set(digests.values())) == len(CONFIGS) - len(SAME_HERE)
    assert all(digests[name] == digests[other] for name, other in SAME_HERE.items())
    for name in ("wan2.2", "cogvideox", "video-dc-ae"):
        copy = make_weights(name, tmp_path / name)
        assert load_teacher(name, copy).weights_hash == digests[name]
        file = copy / "diffusion_pytorch_model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        assert load_teacher(name, copy).weights_hash != digests[name]
    other = make_weights("cogvideox", tmp_path / "scaled", scaling_factor=0.5)
    assert load_teacher("cogvideox", other).weights_hash != digests["cogvideox"], "the same weights, scaled otherwise"
