"""The one place that chooses where tensors are computed. Everybody else is handed a device."""

import os

import torch

from nas.terminal.errors import UserError


def choose_device() -> torch.device:
    """The GPU if there is one (CUDA, else Apple's), else the CPU.

    Of several GPUs the one that a launcher of several processes gives to this one (`LOCAL_RANK`), else the first.
    """
    if torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK")
        return torch.device("cuda") if rank is None else torch.device("cuda", int(rank))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_onednn(device: torch.device) -> bool:
    """Whether convolutions on it are computed by oneDNN, which has its own layout and half precision of a CPU."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def named_device(name: str) -> torch.device:
    """The device of this name, such as cpu, cuda, cuda:1 or mps.

    Raises:
        UserError: there is no such device here.
    """
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or (device.index or 0) >= there.get(device.type, 0):
        here = ", ".join(kind for kind, count in there.items() if count)
        raise UserError(f"no device '{name}' here: expected one of {here}")
    return device
