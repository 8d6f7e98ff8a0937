"""The state of a distillation in one file, written in one step and read without unpickling anything but tensors."""

import io
import pickle
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nas.machine.files import disk_errors, write_bytes
from nas.terminal.errors import UserError


@dataclass
class TrainingState:
    """All that a distillation changes from step to step."""

    modules: dict[str, nn.Module]
    """The student, its moving average, the projection heads."""
    optimizer: torch.optim.Optimizer
    """AdamW over student and heads."""
    scaler: torch.amp.GradScaler
    """Loss scale; does nothing unless training is in float16."""
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time they took, over all processes that worked on this run."""
    rate: float = 1.0
    """What the learning rate is multiplied by: less than 1 after a setback."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, score in dB)."""


def save_checkpoint(path: Path, state: TrainingState, identity: dict[str, Any]) -> None:
    """Write the state; `identity` (primitives) says of what run it is. A kill leaves the file before or this one.

    Raises:
        UserError: the disk does not take it, or what its folder lies in is not there (any more).
    """
    data = {
        "identity": identity,
        "modules": {name: module.state_dict() for name, module in state.modules.items()},
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "rate": state.rate,
        "curve": state.curve,
    }
    buffer = io.BytesIO()
    torch.save(data, buffer)
    with disk_errors("cannot write the checkpoint"):
        write_bytes(path, buffer.getvalue(), parents=False)


def load_checkpoint(path: Path, state: TrainingState, identity: dict[str, Any]) -> None:
    """Bring `state` to where the run in `path` was.

    Raises:
        UserError: the file is damaged, or of a run with another identity (names the first thing that differs).
    """
    data = _read(path)
    _check_identity(path, data["identity"], identity)
    try:
        for name, module in state.modules.items():
            module.load_state_dict(data["modules"][name])
        state.optimizer.load_state_dict(data["optimizer"])
        state.scaler.load_state_dict(data["scaler"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a checkpoint of this student: delete it to start this distillation anew"
        ) from error
    state.step, state.seconds, state.rate = data["step"], data["seconds"], data["rate"]
    state.curve = [(int(step), float(score)) for step, score in data["curve"]]


def _read(path: Path) -> dict[str, Any]:
    remedy = "delete it to start this distillation anew"
    try:
        # torch does not look at the checksums of its own files.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum is wrong")
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a readable checkpoint: {remedy}") from error
    expected = {"identity", "modules", *(each.name for each in fields(TrainingState))}
    if not isinstance(data, dict) or set(data) != expected or not isinstance(data["identity"], dict):
        raise UserError(f"{path} is not a checkpoint of a distillation: {remedy}")
    return data


def _check_identity(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"{path} is of another distillation ({name} is {found.get(name)}, here {wanted.get(name)}): "
                "delete it or use the settings that it was made with"
            )


def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move every floating-point tensor of `average` towards that of `module`: decay * old + (1 - decay) * new.

    Other tensors, such as counts, are copied.
    """
    old, new = average.state_dict(), module.state_dict()
    moving = [name for name, tensor in new.items() if tensor.is_floating_point()]
    # Made anew for every step, since the decay grows. The 0 is a count that a moving average has no use for.
    move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    move([old[name] for name in moving], [new[name] for name in moving], 0)
    for name in new.keys() - set(moving):
        old[name].copy_(new[name])
