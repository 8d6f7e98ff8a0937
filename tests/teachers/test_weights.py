"""Weights of the user's, and of the hub's cache."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.machine.torchvision_operators import import_torchvision
from nas.teachers import list_releases, load_teacher, without_weights
from nas.terminal.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "latents_mean": [0.1, 0.2, 0.3, 0.4],
    "latents_std": [1.0, 2.0, 3.0, 4.0],
}
"""The smallest AutoencoderKLWan of Wan 2.1's compression."""


@pytest.fixture(scope="module")
def original() -> Any:
    import_torchvision()
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    return AutoencoderKLWan(**CONFIG).eval()


@pytest.fixture(scope="module")
def saved(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As diffusers writes it; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "vae"
    original.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def refusal(path: Path, teacher: str = "wan") -> str:
    """The message with which these weights are refused; one line."""
    with pytest.raises(UserError) as caught:
        load_teacher(teacher, path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def as_folder(saved: Path, tmp_path: Path) -> Path:
    return saved


def as_pipeline(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "vae")
    return tmp_path


def as_file(saved: Path, tmp_path: Path) -> Path:
    shutil.copy(saved / "config.json", tmp_path)
    return Path(shutil.copy(saved / WEIGHTS, tmp_path / "my-own-name.safetensors"))


def as_half_precision(saved: Path, tmp_path: Path) -> Path:
    state = {name: tensor.bfloat16() for name, tensor in load_file(saved / WEIGHTS).items()}
    save_file(state, tmp_path / WEIGHTS)
    shutil.copy(saved / "config.json", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("plain_convolutions")
@pytest.mark.parametrize("layout", [as_folder, as_pipeline, as_file, as_half_precision])
@torch.no_grad()
def test_local_weights_of_every_layout(
    layout: Callable[[Path, Path], Path], saved: Path, original: Any, tmp_path: Path
) -> None:
    path = layout(saved, tmp_path)
    teacher = load_teacher("wan", path)
    assert teacher.source == str(path)
    assert (teacher.spec.channels, teacher.spec.spatial, teacher.spec.temporal) == (4, 8, 4)
    assert teacher.spec.mean == (0.1, 0.2, 0.3, 0.4) and teacher.spec.std == (1, 2, 3, 4)
    latents = torch.randn(1, 4, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = original.decode(latents).sample
    assert expected.std() > 0.01
    if layout is as_half_precision:
        assert {parameter.dtype for parameter in teacher.model.parameters()} == {torch.float32}
        assert 0 < (teacher.decode(latents) - expected).abs().max() < 0.05
    else:
        assert torch.equal(teacher.decode(latents), expected)


def test_wan_tiny_takes_other_weights_too(saved: Path) -> None:
    teacher = load_teacher("wan-tiny", saved)
    assert teacher.spec.channels == 4 and teacher.source == str(saved)


@pytest.mark.parametrize("name", ["cogvideox", "ltx2", "wan2.2"])
def test_a_file_alone_is_of_the_published_configuration(name: str, tmp_path: Path) -> None:
    """Where that is not the default of the class: statistics and direction of time show in no shape."""
    release = next(each for each in list_releases() if each.name == name)
    assert release.config
    found = release.weights(Path(shutil.copy(make_file(tmp_path), tmp_path / "vae.safetensors")), "Any")[0]
    assert found.config == release.config
    (tmp_path / "config.json").write_text('{"_class_name": "Any", "z_dim": 3}')
    assert release.weights(tmp_path / "vae.safetensors", "Any")[0].config == {"z_dim": 3}


@torch.no_grad()
def test_a_file_alone_of_cogvideox_is_scaled_as_published(tmp_path: Path) -> None:
    """With the default of the class a student of the 5B model would begin with latents of another size."""
    spec = without_weights(next(each for each in list_releases() if each.name == "cogvideox")).spec
    assert spec.std == pytest.approx((1 / 0.7,) * 16)
    assert not without_weights(next(each for each in list_releases() if each.name == "ltx2")).spec.causal


def make_file(folder: Path) -> Path:
    """Some safetensors file."""
    save_file({"weight": torch.zeros(1)}, folder / "some.safetensors")
    return folder / "some.safetensors"


def test_digest_is_of_weights_and_config(folder: Path, tmp_path: Path) -> None:
    before = load_teacher("wan", folder).weights_hash
    moved = folder.rename(tmp_path / "moved")
    assert load_teacher("wan", moved).weights_hash == before
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(dict(reversed(config.items())) | {"_diffusers_version": "0.0.1"}))
    assert load_teacher("wan", moved).weights_hash == before
    change_config(moved, latents_mean=[0.0, 0.2, 0.3, 0.4])
    with_other_mean = load_teacher("wan", moved).weights_hash
    state = load_file(moved / WEIGHTS)
    state["decoder.conv_in.bias"][0] += 1
    save_file(state, moved / WEIGHTS)
    assert len({before, with_other_mean, load_teacher("wan", moved).weights_hash}) == 3


def test_a_path_with_nothing_in_it_is_refused(tmp_path: Path, saved: Path) -> None:
    assert f"--teacher-weights {tmp_path / 'nowhere'} does not exist" in refusal(tmp_path / "nowhere")
    message = refusal(tmp_path)
    assert str(tmp_path) in message and "expected a folder in diffusers' layout" in message
    shutil.copy(saved / WEIGHTS, tmp_path)
    assert f"no config.json with {WEIGHTS}" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["vae.pt", "vae.bin", "vae.pth", "vae.ckpt"])
def test_pickles_are_not_loaded(name: str, tmp_path: Path) -> None:
    """Loading one runs what is in it: here that would leave a file."""
    trap = tmp_path / "sprung"
    torch.save({"trap": Trap(trap)}, tmp_path / name)
    assert "pickled checkpoints are not loaded" in refusal(tmp_path / name)
    assert not trap.exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_weights_of_another_class_are_refused(folder: Path) -> None:
    change_config(folder, _class_name="AutoencoderKL")
    assert "is for AutoencoderKL, expected AutoencoderKLWan" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "is for no known class" in refusal(folder)
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKLWan", ')
    assert f"{folder / 'config.json'} is not valid JSON" in refusal(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    assert "is not valid JSON" in refusal(folder)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    whole = load_file(folder / WEIGHTS)
    name = "decoder.conv_in.bias"
    changes: dict[str, dict[str, torch.Tensor]] = {
        f"1 of {len(whole)} tensors differ, first {name}: found nothing, expected (8,)": {
            key: tensor for key, tensor in whole.items() if key != name
        },
        f"1 of {len(whole)} tensors differ, first {name}: found (9,), expected (8,)": whole | {name: torch.zeros(9)},
        f"1 of {len(whole)} tensors differ, first extra: found (1,), expected nothing": whole
        | {"extra": torch.zeros(1)},
    }
    for expected, state in changes.items():
        save_file(state, folder / WEIGHTS)
        message = refusal(folder)
        assert f"{folder / WEIGHTS} does not fit AutoencoderKLWan" in message and expected in message
    save_file(whole, folder / WEIGHTS)
    (folder / "config.json").unlink()
    assert "does not fit AutoencoderKLWan" in refusal(folder / WEIGHTS)


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.01, 0.5, 0.9999, 1.1])
def test_a_file_that_is_not_whole_is_refused(part: float, folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    size = int(len(data) * part)
    (folder / WEIGHTS).write_bytes((data + bytes(len(data)))[:size])
    assert f"{folder / WEIGHTS} is not a complete safetensors file" in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"dim_mult": [1, 1, 1, 1, 1]},
        {"dim_mult": "1, 1"},
        {"temperal_downsample": [True]},
        {"base_dim": "8"},
        {"z_dim": -4},
        {"base_dim": 16},
        {"latents_mean": [0.1, 0.2, 0.3]},
        {"latents_std": [1.0, 2.0, 3.0, 0.0]},
        {"scale_factor_spatial": 6},
        {"scale_factor_spatial": 16},
        {"scale_factor_temporal": 8},
    ],
    ids=lambda change: " ".join(f"{name}={value}" for name, value in change.items()),
)
def test_a_config_that_does_not_fit_is_refused(change: dict[str, object], folder: Path) -> None:
    """Before anything is begun, though it is only seen by building the class or by asking for its geometry."""
    change_config(folder, **change)
    assert str(folder) in refusal(folder)


def test_cached_weights_need_no_network(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    revision = "0fad780a534b6463e45facd96134c9f345acfa5b"
    snapshot = tmp_path / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers" / "snapshots" / revision
    shutil.copytree(saved, snapshot / "vae")
    teacher = load_teacher("wan")
    assert teacher.spec.channels == 4
    assert teacher.source == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers@0fad780" and teacher.licence == "Apache-2.0"
