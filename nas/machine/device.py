"""The one place that chooses where tensors are computed. Everybody else is handed a device."""

import torch


def choose_device() -> torch.device:
    """The GPU if there is one (CUDA, else Apple's), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_onednn(device: torch.device) -> bool:
    """Whether convolutions on it are computed by oneDNN, which has its own layout and half precision of a CPU."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
