"""The authors' checkpoints: their names, their frames, and what is refused."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.model import TurboVAED
from nas.model.published import RELEASES, build_published
from nas.model.published_layouts import published_name
from nas.terminal.errors import UserError
from search_spaces import PRESETS, Decoder, DecoderConfig, LatentSpec
from search_spaces.presets import turbo_vaed
from tests.teachers.test_video_dc_ae import chirp, relative_error

DATA = Path(__file__).parents[1] / "reference"
SHAPES = DATA / "turbo_vaed_shapes.json"
"""Decoder -> name -> shape of every tensor of the authors' implementation, at narrow widths."""
OUTPUTS = DATA / "turbo_vaed_outputs.safetensors"
"""Decoder -> frames of the authors' implementation with the weights and latents of `narrow_outputs`."""

HUNYUAN = LatentSpec(channels=8, spatial=8, temporal=4)
DC = LatentSpec(channels=16, spatial=32, temporal=4, frame_rule="multiple", causal=False)
LTX = LatentSpec(channels=16, spatial=32, temporal=8, causal=False)
SMALL = {
    "turbo_vaed_hunyuan": turbo_vaed(
        HUNYUAN, widths=(64, 32, 16, 8), layers=(9, 4, 4, 5), temporal_stages=(1, 2), patch_size=1
    ),
    "turbo_vaed_dc": turbo_vaed(DC, widths=(64, 32, 32, 32), layers=(7, 3, 3, 4), temporal_stages=(1, 2), patch_size=4),
    "turbo_vaed_ltx": turbo_vaed(
        LTX, widths=(64, 32, 32, 32), layers=(2, 3, 2, 3), temporal_stages=(1, 2, 3), patch_size=4
    ),
}
"""The layouts of the published decoders at the widths of the reference data."""
MIDDLE = {"turbo_vaed_hunyuan": 5, "turbo_vaed_dc": 4, "turbo_vaed_ltx": 1}
"""Blocks of stage 0 that the authors keep in `mid_block`."""
EVERY_LAYOUT = pytest.mark.parametrize("preset", SMALL)


def released(preset: str, decoder: Decoder) -> dict[str, Tensor]:
    """The weights of `decoder` as the authors' file holds them, with what it holds beside them."""
    tensors = {
        f"decoder.{published_name(decoder.config, name, MIDDLE[preset])}": tensor
        for name, tensor in decoder.state_dict().items()
    }
    return tensors | {
        "aligned_feature_projection_heads.0.0.conv.weight": torch.ones(4, 4, 1, 1, 1),
        "latents_mean": torch.zeros(16),
        "latents_std": torch.ones(16),
    }


def narrow(preset: str) -> Decoder:
    """The layout with weights by formula, gain about one."""
    decoder = Decoder(SMALL[preset]).eval()
    for offset, parameter in enumerate(decoder.parameters()):
        values = chirp(*parameter.shape, offset=offset)
        gain = (1.5 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.data = values * gain
    return decoder


@torch.no_grad()
def narrow_outputs() -> dict[str, Tensor]:
    """This implementation's counterpart of OUTPUTS: every third row and column of the frames."""
    latents = {name: chirp(1, config.latents.channels, 2, 1, 2) for name, config in SMALL.items()}
    return {name: narrow(name)(latents[name])[..., ::3, ::3].contiguous() for name in SMALL}


@EVERY_LAYOUT
def test_names_and_shapes_are_the_authors(preset: str) -> None:
    with torch.device("meta"):
        state = Decoder(SMALL[preset]).state_dict()
    found = {published_name(SMALL[preset], name, MIDDLE[preset]): list(value.shape) for name, value in state.items()}
    assert found == json.loads(SHAPES.read_text())[preset]


def test_frames_are_those_of_the_published_implementation() -> None:
    published = load_file(OUTPUTS)
    assert published.keys() == SMALL.keys()
    for name, frames in narrow_outputs().items():
        assert published[name].std() > 0.05
        assert relative_error(frames, published[name]) < 1e-5, name


@pytest.mark.skipif("NAS_REFERENCE" not in os.environ, reason="NAS_REFERENCE names no folder with reference data")
@EVERY_LAYOUT
@torch.no_grad()
def test_frames_of_larger_decoders_are_those_of_the_published_implementation(preset: str) -> None:
    tensors = load_file(Path(os.environ["NAS_REFERENCE"]) / "turbo_vaed" / f"{preset}_small.safetensors")
    latents, frames = tensors.pop("io.latents"), tensors.pop("io.frames")
    decoder = build_published(SMALL[preset], tensors, preset)
    assert relative_error(decoder(latents), frames) < 1e-5


def test_every_published_preset_has_its_checkpoint() -> None:
    assert RELEASES.keys() == PRESETS.keys() - {"flash_vaed_ltx"}
    published = {"hunyuan": 5, "cog": 5, "dc": 4, "ltx": 1}
    for name, middle in published.items():
        config = PRESETS[f"turbo_vaed_{name}"]
        with torch.device("meta"):
            own = Decoder(config).state_dict()
        names = [published_name(config, each, middle) for each in own]
        assert len(set(names)) == len(names)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A released file of the LTX decoder, at narrow widths."""
    monkeypatch.setitem(PRESETS, "turbo_vaed_ltx", SMALL["turbo_vaed_ltx"])
    file = tmp_path / "Turbo-VAED-LTX.pth"
    torch.save(released("turbo_vaed_ltx", narrow("turbo_vaed_ltx")), file)
    return file


@torch.no_grad()
def test_a_released_file_becomes_a_model(checkpoint: Path, tmp_path: Path) -> None:
    """As a file, in a folder, as safetensors, with and without the prefix; and it is saved like any other."""
    tensors = torch.load(checkpoint, weights_only=True)
    half, bare = tmp_path / "half.safetensors", tmp_path / "bare.pth"
    save_file({name: tensor.half() for name, tensor in tensors.items()}, half)
    torch.save({name.removeprefix("decoder."): value for name, value in tensors.items()}, bare)
    latents = chirp(1, 16, 2, 1, 2)
    wanted = narrow("turbo_vaed_ltx")(latents).clamp(-1, 1)
    for path in (checkpoint, str(checkpoint.parent), bare):
        model = TurboVAED.from_published(path, "turbo_vaed_ltx")
        assert not model.training and torch.equal(model.decode(latents, return_dict=False)[0], wanted)
    assert model.config["teacher"] == "ltx"
    assert DecoderConfig.from_dict(model.config["architecture"]) == SMALL["turbo_vaed_ltx"]
    rounded = TurboVAED.from_published(half, "turbo_vaed_ltx")
    assert rounded.dtype == torch.float32
    assert 0 < relative_error(rounded.decode(latents, return_dict=False)[0], wanted) < 0.05
    model.save_pretrained(tmp_path / "model")
    again = TurboVAED.from_pretrained(tmp_path / "model")
    assert torch.equal(again.decode(latents, return_dict=False)[0], wanted)


def test_a_file_of_another_decoder_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"as 'turbo_vaed_cog', does not fit: \d+ tensors differ, first conv_in"):
        TurboVAED.from_published(checkpoint, "turbo_vaed_cog")


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"decoder.norm_out.running_mean": torch.zeros(2)}, "norm_out.running_mean: found (2,), expected nothing"),
        ({"decoder.conv_in.conv.bias": None}, "conv_in.conv.bias: found nothing, expected (64,)"),
        ({"decoder.conv_in.conv.bias": torch.zeros(3)}, "conv_in.conv.bias: found (3,), expected (64,)"),
    ],
)
def test_no_tensor_is_left_out_or_made_up(checkpoint: Path, change: dict[str, Any], first: str) -> None:
    tensors = torch.load(checkpoint, weights_only=True) | change
    torch.save({name: tensor for name, tensor in tensors.items() if tensor is not None}, checkpoint)
    with pytest.raises(UserError, match=re.escape(f"1 tensors differ, first {first}")):
        TurboVAED.from_published(checkpoint, "turbo_vaed_ltx")


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_not_run(checkpoint: Path) -> None:
    folder = checkpoint.parent / "made"
    torch.save({"decoder.conv_in.conv.bias": Harmful(folder)}, checkpoint)
    with pytest.raises(UserError, match="is not a complete checkpoint of tensors only"):
        TurboVAED.from_published(checkpoint, "turbo_vaed_ltx")
    assert not folder.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not a complete checkpoint of tensors only"):
        TurboVAED.from_published(file, "turbo_vaed_ltx")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was released for the preset 'turbo_vaed_wan': expected one of turbo"):
        TurboVAED.from_published(tmp_path, "turbo_vaed_wan")
    with pytest.raises(UserError, match=r"holds neither Turbo-VAED-DC\.pth nor Turbo-VAED-DC\.safetensors"):
        TurboVAED.from_published(tmp_path, "turbo_vaed_dc")
    for unpinned in ("nobody/nothing", "nobody/nothing@main", "nobody/nothing@122de7b"):
        with pytest.raises(UserError, match="OWNER/NAME@REVISION of a repository on the hub, with the 40 digits"):
            TurboVAED.from_published(unpinned, "turbo_vaed_dc")


def test_a_hub_without_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"Turbo-VAED-DC\.pth of nobody/nothing@0{40} are not cached"):
        TurboVAED.from_published(f"nobody/nothing@{'0' * 40}", "turbo_vaed_dc")
