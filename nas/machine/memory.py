"""How many bytes of memory a run needs, worked out from the sizes of its tensors, and how many there are."""

import os
import resource
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""File that holds the bytes that a Linux container may use, or "max"."""
_CHANNEL_BLOCK = 16
"""Number of channels that lie together in the layout that oneDNN convolves in."""


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes that the tensors made by `run` took at any one time.

    With meta tensors nothing is computed. A convolution counts its input and output twice: libraries bring both into
    a layout of their own, with channels in blocks of 16.
    """
    tracker = _LiveTensors()
    # Inference mode would keep composite operations whole and hide what they copy.
    with torch.inference_mode(False), torch.no_grad(), tracker:
        run()
    return tracker.peak


def memory_limit(device: torch.device) -> int:
    """Bytes of memory that a program can use: all of a GPU, else the least that machine, container and shell allow."""
    if device.type == "cuda":
        total: int = torch.cuda.get_device_properties(device).total_memory
        return total
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    shell, _ = resource.getrlimit(resource.RLIMIT_AS)
    if shell != resource.RLIM_INFINITY:
        limits.append(shell)
    container = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.is_file() else "max"
    return min([*limits, *([] if container == "max" else [int(container)])])


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has held at any one time: on a GPU in tensors, elsewhere altogether."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        inputs = {tensor.untyped_storage() for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        out = func(*args, **(kwargs or {}))
        outputs = {tensor.untyped_storage() for tensor in tree_leaves(out) if isinstance(tensor, Tensor)}
        for storage in outputs - inputs:
            self._add(storage)
        copies = _blocked_bytes(args[0]) + _blocked_bytes(out) if func is torch.ops.aten.convolution.default else 0
        self.peak = max(self.peak, self._live + copies)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self._live += size
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self._live -= size


def _blocked_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor `(b, c, ...)` with c rounded up to a multiple of 16."""
    channels = tensor.shape[1]
    return tensor.nbytes // channels * (-(-channels // _CHANNEL_BLOCK) * _CHANNEL_BLOCK)
