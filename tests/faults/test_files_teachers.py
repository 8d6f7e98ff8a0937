"""Other people's teacher weights: whatever diffusers loads, and one line for whatever nothing can load."""

import errno
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.machine.torchvision_operators import import_torchvision
from nas.teachers import load_teacher
from nas.teachers.weights import WeightFiles
from nas.terminal.errors import UserError
from tests.support.damage import damaged_bytes, damaged_json
from tests.support.errors import refusal

NAME = "diffusion_pytorch_model"
WEIGHTS = f"{NAME}.safetensors"
CONFIG: dict[str, Any] = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
CONFIG |= {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}


@pytest.fixture(scope="module")
def original() -> Any:
    import_torchvision()
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    return AutoencoderKLWan(**CONFIG).eval()


@pytest.fixture(scope="module")
def saved(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "vae"
    original.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def as_variant(original: Any, folder: Path) -> Path:
    original.save_pretrained(folder, variant="fp16")
    return folder


def as_shards(original: Any, folder: Path) -> Path:
    original.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob(f"{NAME}-*-of-*.safetensors"))) > 2
    return folder


def as_shards_of_a_variant(original: Any, folder: Path) -> Path:
    original.save_pretrained(folder, max_shard_size="100KB", variant="fp16")
    return folder


def as_index(original: Any, folder: Path) -> Path:
    return as_shards(original, folder) / f"{WEIGHTS}.index.json"


def in_upper_case(original: Any, folder: Path) -> Path:
    original.save_pretrained(folder)
    (folder / WEIGHTS).rename(folder / f"{NAME}.SAFETENSORS")
    (folder / "config.json").rename(folder / "CONFIG.JSON")
    return folder


def as_a_file_in_upper_case(original: Any, folder: Path) -> Path:
    return in_upper_case(original, folder) / f"{NAME}.SAFETENSORS"


def with_a_mark(original: Any, folder: Path) -> Path:
    original.save_pretrained(folder)
    (folder / "config.json").write_text((folder / "config.json").read_text(), encoding="utf-8-sig")
    return folder


def in_a_pipeline(original: Any, folder: Path) -> Path:
    as_shards(original, folder / "vae")
    return folder


def without_a_class(original: Any, folder: Path) -> Path:
    original.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key[0] != "_"}))
    return folder


LAYOUTS = [as_variant, as_shards, as_shards_of_a_variant, as_index, in_upper_case, as_a_file_in_upper_case]
LAYOUTS += [with_a_mark, in_a_pipeline, without_a_class]


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_what_diffusers_loads_is_loaded(layout: Callable[[Any, Path], Path], original: Any, tmp_path: Path) -> None:
    teacher = load_teacher("wan", layout(original, tmp_path / "weights"))
    latents = torch.randn(1, 4, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(teacher.decode(latents), original.decode(latents).sample, rtol=0, atol=1e-4)
    assert len(teacher.weights_hash) == 64
    assert bool(teacher.warnings) is (layout in (as_variant, as_shards_of_a_variant))
    assert all("fp16" in line for line in teacher.warnings)


def test_the_hash_of_one_file_is_as_it_always_was(saved: Path) -> None:
    """Targets that were computed from it are found by it."""
    import hashlib

    config = {k: v for k, v in json.loads((saved / "config.json").read_text()).items() if not k.startswith("_")}
    digest = hashlib.sha256((saved / WEIGHTS).read_bytes() + repr(sorted(config.items())).encode())
    assert load_teacher("wan", saved).weights_hash == digest.hexdigest()


def test_the_hash_of_shards_is_of_all_of_them(original: Any, tmp_path: Path) -> None:
    folder = as_shards(original, tmp_path / "weights")
    hashes = {load_teacher("wan", folder).weights_hash}
    shards = sorted(folder.glob(f"{NAME}-*.safetensors"))
    for shard in shards:
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        hashes.add(load_teacher("wan", folder).weights_hash)
    assert len(hashes) == len(shards) + 1


def test_settings_that_diffusers_does_not_know_are_ignored_and_named(folder: Path, saved: Path) -> None:
    """Wan 2.2's published configuration has `clip_output`, for one."""
    change_config(folder, clip_output=False, brand_new=[1, {"a": None}])
    teacher = load_teacher("wan", folder)
    (line,) = teacher.warnings
    assert "brand_new, clip_output, which AutoencoderKLWan does not know" in line and "ignored" in line
    assert teacher.decoder_parameters == load_teacher("wan", saved).decoder_parameters
    assert load_teacher("wan", saved).warnings == ()


def test_of_several_files_the_choice_is_said(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / f"{NAME}.fp16.safetensors")
    (line,) = load_teacher("wan", folder).warnings
    assert line == f"weights: {WEIGHTS} is read, {NAME}.fp16.safetensors ignored"
    (folder / WEIGHTS).rename(folder / f"{NAME}.bf16.safetensors")
    assert load_teacher("wan", folder).weights.file.name == f"{NAME}.bf16.safetensors"


def index_of(folder: Path) -> Path:
    return folder / f"{WEIGHTS}.index.json"


def drop_shard(folder: Path) -> None:
    sorted(folder.glob(f"{NAME}-*.safetensors"))[1].unlink()


def cut_shard(folder: Path) -> None:
    shard = sorted(folder.glob(f"{NAME}-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-50])


def lead_elsewhere(folder: Path) -> None:
    index_of(folder).write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))


def hold_twice(folder: Path) -> None:
    first, second = sorted(folder.glob(f"{NAME}-*.safetensors"))[:2]
    save_file(load_file(first) | load_file(second), second)


SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (drop_shard, f"names {NAME}-00002-of-"),
    "cut off": (cut_shard, "is not a complete safetensors file"),
    "elsewhere": (lead_elsewhere, "is no index of weights"),
    "empty index": (lambda folder: index_of(folder).write_text("{}"), "is no index of weights"),
    "no index": (lambda folder: index_of(folder).write_text("["), "is not valid JSON"),
    "twice": (hold_twice, "as another shard does"),
}


@pytest.mark.parametrize("row", SHARDS)
def test_shards_that_are_none(row: str, original: Any, tmp_path: Path) -> None:
    damage, reason = SHARDS[row]
    folder = as_shards(original, tmp_path / "weights")
    damage(folder)
    assert reason in refusal(lambda: load_teacher("wan", folder))


def test_one_shard_of_several_is_told_from_a_whole_model(original: Any, tmp_path: Path) -> None:
    shard = sorted(as_shards(original, tmp_path / "weights").glob(f"{NAME}-*.safetensors"))[0]
    assert "give the folder with all shards" in refusal(lambda: load_teacher("wan", shard))


def test_quantized_weights_are_not_taken_for_weights(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file(state | {"decoder.conv_in.bias": torch.ones(8, dtype=torch.int8)}, folder / WEIGHTS)
    assert "decoder.conv_in.bias holds I8, not floats" in refusal(lambda: load_teacher("wan", folder))


@pytest.mark.parametrize("path", ["x" * 300, "x" * 300 + ".safetensors", "a/" * 3000])
def test_paths_that_cannot_be(path: str) -> None:
    assert "a name in the path is too long" in refusal(lambda: load_teacher("wan", Path(path)))


@pytest.mark.parametrize("method", ["iterdir", "open", "read_bytes", "is_file"])
def test_weights_that_may_not_be_read(method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, method, refuse)
    message = refusal(lambda: load_teacher("wan", folder).weights_hash)
    assert "cannot be read (permission is denied)" in message and str(folder) in message


def test_a_cache_of_the_hub_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/cache/refs/main")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    message = refusal(lambda: load_teacher("wan"))
    assert "cannot be read from the hub's cache (permission is denied): give a local copy" in message


def test_a_size_that_nobody_means_is_refused_at_once(folder: Path) -> None:
    for value in (10**9, [1] * 10**5):
        change_config(folder, num_res_blocks=value)
        assert "too l" in refusal(lambda: load_teacher("wan", folder))


# Whatever is damaged


def one_line(call: Callable[[], object], path: Path) -> bool:
    """Whether it is refused; with anything but one line the test fails."""
    try:
        call()
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error), str(error)
        return True
    return False


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_damaged_configuration_is_one_line(seed: int, folder: Path) -> None:
    generator, path = random.Random(seed), folder / "config.json"
    content, refused = json.loads(path.read_text()), 0
    for _ in range(50):
        damage = damaged_bytes if generator.random() < 0.4 else damaged_json
        path.write_bytes(before := damage(content, generator))
        refused += one_line(lambda: load_teacher("wan", folder), folder)
        assert path.read_bytes() == before
    assert refused > 20


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_index_is_one_line(seed: int, original: Any, tmp_path: Path) -> None:
    folder = as_shards(original, tmp_path / "weights")
    generator, path = random.Random(seed), index_of(folder)
    content, refused = json.loads(path.read_text()), 0
    for _ in range(40):
        damage = damaged_bytes if generator.random() < 0.4 else damaged_json
        path.write_bytes(damage(content, generator))
        refused += one_line(lambda: load_teacher("wan", folder), folder)
    assert refused > 8


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_header_is_one_line(seed: int, tmp_path: Path) -> None:
    """What is not refused has the same names and shapes, and its values can be read."""
    model = torch.nn.Linear(3, 2)
    path = tmp_path / "a.safetensors"
    save_file(dict(model.state_dict()), path)
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, refused = json.loads(data[8 : 8 + size]), 0
    generator = random.Random(seed)
    for _ in range(300):
        damage = damaged_bytes if generator.random() < 0.5 else damaged_json
        changed = damage(header, generator)
        length = len(changed) if generator.random() < 0.8 else generator.choice([0, 1, size, 2**32, 2**63, 2**64 - 1])
        path.write_bytes(struct.pack("<Q", length) + changed + data[8 + size :])
        refused += one_line(lambda: WeightFiles(path, {}).load_into(torch.nn.Linear(3, 2), torch.float32), path)
    assert refused > 150
