"""Core ML packages as uploads: whole ones arrive as they are, and nothing else is written anywhere."""

import io
import stat
import zipfile
from pathlib import Path

import pytest
import torch

from nas.core_ml.convert import to_core_ml
from nas.latency.agent.archive import MODEL, BadArchiveError, content_digest, pack, unpack

LIMIT = 10**6


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A really converted model."""
    path = tmp_path_factory.mktemp("package") / "decoder.mlpackage"
    torch.manual_seed(0)
    to_core_ml(torch.nn.Conv2d(8, 8, 3), (torch.zeros(1, 8, 8, 8),)).save(str(path))
    return path


def write_archive(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


WHOLE = (("Manifest.json", b"{}"), (MODEL, b"model"))


def test_a_package_arrives_as_it_was(package: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(pack(package))
    unpack(upload, tmp_path / "there", LIMIT)
    names = ("Manifest.json", MODEL, "Data/com.apple.CoreML/weights/weight.bin")
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (package / name).read_bytes()
    assert sum(path.is_file() for path in (tmp_path / "there").rglob("*")) == len(names)


def test_the_digest_is_of_the_model_alone(tmp_path: Path) -> None:
    one = write_archive(tmp_path / "1", *WHOLE)
    same = write_archive(tmp_path / "2", (MODEL, b"model"), ("Manifest.json", b'{"id": "random"}'))
    other = write_archive(tmp_path / "3", ("Manifest.json", b"{}"), (MODEL, b"another"))
    assert content_digest(one, LIMIT) == content_digest(same, LIMIT) != content_digest(other, LIMIT)


def a_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


BAD: dict[str, tuple[tuple[str | zipfile.ZipInfo, bytes], ...]] = {
    "above its folder": (*WHOLE, ("../outside", b"x")),
    "above, under a good name": (*WHOLE, ("Data/../../outside", b"x")),
    "absolute": (*WHOLE, ("/tmp/outside", b"x")),
    "another system's": (*WHOLE, ("..\\outside", b"x")),
    "a link": ((WHOLE[0]), (a_link(MODEL), b"/etc/passwd")),
    "a link beside": (*WHOLE, (a_link("Data/com.apple.CoreML/weights"), b"/tmp")),
    "something else": (*WHOLE, ("setup.py", b"x")),
    "no model": (WHOLE[0],),
    "no manifest": (WHOLE[1],),
    "nothing": (),
    "too large": (*WHOLE, ("Data/com.apple.CoreML/weights/weight.bin", b"\0" * (LIMIT + 1))),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_package_is_not_unpacked(what: str, tmp_path: Path) -> None:
    upload = write_archive(tmp_path / "upload", *BAD[what])
    inside = tmp_path / "agent" / "work"
    with pytest.raises(BadArchiveError):
        content_digest(upload, LIMIT)
    with pytest.raises(BadArchiveError):
        unpack(upload, inside, LIMIT)
    assert not inside.exists() and {path.name for path in tmp_path.iterdir()} == {"upload"}


def test_the_same_file_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        upload = write_archive(tmp_path / "upload", *WHOLE, WHOLE[1])
    with pytest.raises(BadArchiveError, match="twice"):
        unpack(upload, tmp_path / "there", LIMIT)


def test_an_archive_that_lies_about_its_size(tmp_path: Path) -> None:
    data = bytearray(write_archive(tmp_path / "honest", *WHOLE, (BAD["too large"][2])).read_bytes())
    # The size in the central directory, by which a reader goes: ten bytes instead of a million.
    at = data.rindex(b"weight.bin") - len("Data/com.apple.CoreML/weights/") - 46 + 24
    assert int.from_bytes(data[at : at + 4], "little") == LIMIT + 1
    data[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "upload").write_bytes(data)
    with pytest.raises(BadArchiveError):
        unpack(tmp_path / "upload", tmp_path / "there", LIMIT)
    written = [path.stat().st_size for path in (tmp_path / "there").rglob("*") if path.is_file()]
    assert sum(written) <= LIMIT


@pytest.mark.parametrize("damage", ["cut", "flipped", "junk", "empty"])
def test_damaged_archives(damage: str, package: Path, tmp_path: Path) -> None:
    data = bytearray(pack(package))
    if damage == "flipped":
        data[data.index(b"Data/com.apple.CoreML/model.mlmodel") + 100] ^= 0xFF
    broken = {"cut": bytes(data[: len(data) // 2]), "flipped": bytes(data), "junk": b"PK\x03\x04" * 99, "empty": b""}[
        damage
    ]
    (tmp_path / "upload").write_bytes(broken)
    with pytest.raises(BadArchiveError):
        content_digest(tmp_path / "upload", LIMIT)
    with pytest.raises(BadArchiveError):
        unpack(tmp_path / "upload", tmp_path / "there", LIMIT)


def test_packing_leaves_out_what_no_package_has(package: Path) -> None:
    (package / "notes.txt").write_text("mine")
    with zipfile.ZipFile(io.BytesIO(pack(package))) as archive:
        assert "notes.txt" not in archive.namelist()
    (package / "notes.txt").unlink()
