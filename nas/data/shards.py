"""Files of named tensors that know whether they are whole: safetensors with a digest of the data in the header."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nas.machine.files import write_bytes


def write_shard(path: Path, tensors: dict[str, Tensor], **notes: str) -> None:
    """Write tensors (on the CPU, contiguous) in one step, and what else there is to say of them (`shard_note`)."""
    write_bytes(path, save(tensors, metadata={"sha256": _digest(tensors), **notes}))


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
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get("sha256")
        return written is not None and (not check_data or _digest(read_shard(path)) == written)
    except (SafetensorError, OSError):
        return False


def shard_digest(path: Path) -> str:
    """What the header of a complete shard says that it holds."""
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["sha256"])


def shard_note(path: Path, name: str) -> str:
    """What was noted with a complete shard; "" if that was nothing."""
    with safe_open(path, framework="pt") as file:
        return str(file.metadata().get(name, ""))


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data.cast("B"))
    return digest.hexdigest()
