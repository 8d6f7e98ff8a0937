"""A Core ML package as one file, and back: nothing but what a package consists of, nowhere but in its folder."""

import hashlib
import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MODEL = "Data/com.apple.CoreML/model.mlmodel"
_ALLOWED = ("Manifest.json", MODEL, "Data/com.apple.CoreML/weights/weight.bin")
"""Every file that a package of an ML program may have."""

_CHUNK = 1 << 20


class BadArchiveError(ValueError):
    """An archive that is damaged, too large, or holds something other than a Core ML package."""


def pack(package: Path) -> bytes:
    """A package folder as a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in _ALLOWED:
            if (package / name).exists():
                archive.write(package / name, name)
    return buffer.getvalue()


def unpack(archive_path: Path, folder: Path, largest: int) -> None:
    """Write an archive's files into `folder`, which is made.

    Names come from a fixed list, so nothing is written anywhere else; sizes are counted as bytes come out, whatever
    the archive claims.

    Args:
        archive_path: the archive.
        folder: does not exist yet.
        largest: bytes that its files may have together.

    Raises:
        BadArchiveError: the archive is damaged, too large, or not a Core ML package. `folder` may then be incomplete.
    """
    try:
        with zipfile.ZipFile(archive_path) as archive:
            members = _check_members(archive.infolist(), largest)
            left = largest
            for member in members:
                left -= _extract(archive, member, folder / member.filename, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(f"the upload is not a readable zip archive: {error}") from error


def content_digest(archive_path: Path, largest: int) -> str:
    """Hash of what an archive's model is: specification and weights, not the manifest's random identifiers."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(archive_path) as archive:
            for member in sorted(_check_members(archive.infolist(), largest), key=lambda each: each.filename):
                if member.filename == "Manifest.json":
                    continue
                digest.update(member.filename.encode() + b"\0")
                for chunk in _read(archive, member, largest):
                    digest.update(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(f"the upload is not a readable zip archive: {error}") from error
    return digest.hexdigest()


def _check_members(members: list[zipfile.ZipInfo], largest: int) -> list[zipfile.ZipInfo]:
    files = [member for member in members if not member.is_dir()]
    names = [member.filename for member in files]
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadArchiveError(f"the archive holds something that is not a file: {member.filename!r}")
        if not member.is_dir() and member.filename not in _ALLOWED:
            raise BadArchiveError(f"the archive holds {member.filename!r}, which is not part of a Core ML package")
    if len(set(names)) != len(names):
        raise BadArchiveError("the archive holds the same file twice")
    if not {"Manifest.json", MODEL} <= set(names):
        raise BadArchiveError(f"the archive is not a Core ML package: it needs Manifest.json and {MODEL}")
    if sum(member.file_size for member in files) > largest:
        raise BadArchiveError(f"the archive holds more than {largest} bytes")
    return files


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, limit: int) -> int:
    """Bytes that were written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in _read(archive, member, limit):
            file.write(chunk)
        return file.tell()


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    """The bytes of a member in chunks, its checksum verified at the end."""
    size = 0
    with archive.open(member) as source:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise BadArchiveError(f"{member.filename} is larger than the {limit} bytes that are left for it")
            yield chunk
