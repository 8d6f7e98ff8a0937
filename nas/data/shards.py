"""Files of named tensors that know whether they are whole: safetensors with a digest of the data in the header."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nas.machine.files import write_bytes

_ABOUT = "about"


def write_shard(path: Path, tensors: dict[str, Tensor], **notes: int) -> None:
    """Write tensors (on the CPU, contiguous) in one step, and what else there is to say of them (`shard_note`).

    The same tensors and notes give the same bytes.
    """
    about = {"sha256": _digest(tensors), **notes}
    # As one text: safetensors keeps several in any order.
    write_bytes(path, save(tensors, metadata={_ABOUT: json.dumps(about, sort_keys=True)}))


def read_shard(path: Path) -> dict[str, Tensor]:
    """All tensors of a shard."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_row(path: Path, position: int) -> dict[str, Tensor]:
    """One position of the first axis of all tensors; nothing else is read."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name)[position] for name in file.keys()}  # noqa: SIM118


def is_whole(path: Path, *, check_data: bool) -> bool:
    """Whether a shard is there and complete (its header says how long it is), and if asked, as it was written."""
    if not path.exists():
        return False
    try:
        about = _about(path)
        return about is not None and (not check_data or _digest(read_shard(path)) == about["sha256"])
    except (SafetensorError, OSError):
        return False


def shard_digest(path: Path) -> str:
    """What the header of a complete shard says that it holds."""
    return str(shard_note(path, "sha256"))


def shard_note(path: Path, name: str) -> Any:
    """What was noted with a complete shard; 0 if that was nothing."""
    return (_about(path) or {}).get(name, 0)


def _about(path: Path) -> dict[str, Any] | None:
    """Digest and notes of a shard; None if its header has none."""
    with safe_open(path, framework="pt") as file:
        written = (file.metadata() or {}).get(_ABOUT)
    try:
        about = json.loads(written or "null")
    except ValueError:
        return None
    return about if isinstance(about, dict) and "sha256" in about else None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data.cast("B"))
    return digest.hexdigest()
