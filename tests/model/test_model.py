"""Finished models: in and out of diffusers' format, whole or in a stream, finished and published."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.model import TurboVAED
from search_spaces import DecoderConfig
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
