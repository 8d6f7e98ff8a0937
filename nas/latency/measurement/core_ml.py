"""Core ML as a device: this Mac, or an iPhone that is connected to it. Every setting of the compute units is measured.

Each setting runs in a process of its own (`isolated.py`): a failed compilation ends its process, and is a result.
"""

import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nas.latency.measurement.isolated import run_isolated
from nas.latency.measurement.worker import COMMAND
from nas.latency.record import Kind, LatencyRecord, MeasurementFailedError, Runtime, Workload, provenance
from nas.machine.files import disk_errors
from nas.machine.temporary import temporary_folder
from nas.terminal.errors import UserError
from search_spaces import LatentSpec

UNITS = ("CPU_AND_NE", "CPU_AND_GPU", "ALL", "CPU_ONLY")
"""Settings of the compute units. ALL is not always the fastest."""

TIME_LIMIT_S = 900.0
"""Seconds for one setting: compilation for the Neural Engine alone may take minutes."""

_OLDEST_MACOS = (14, 4)
"""First version of macOS with compute plans."""


@dataclass(frozen=True)
class CoreMLDevice:
    """The Mac that this runs on ("coreml"), or the iPhone that is connected to it ("iphone")."""

    name: str
    """Name that the device is opened by: coreml or iphone."""

    kind: Kind = "measured"
    error: float | None = None
    runtime: Runtime = "coreml"
    needs_weights: bool = True

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, measured on this Mac with Core ML"."""
        where = "this Mac" if self.name == "coreml" else "the connected iPhone"
        return f"{provenance(workload, self.kind, where, None)} with Core ML"

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Convert, then measure with every setting of the compute units; the fastest counts."""
        with disk_errors("cannot convert a decoder"), temporary_folder(Path(tempfile.gettempdir())) as folder:
            package = convert(self.name, decoder, spec, workload, folder)
            return measure_package(self.name, package, workload)


class _Summary(nn.Module):
    """A decoder that returns one number per clip: what a phone would otherwise send back after every run."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor) -> Tensor:
        """`(1, c, t, h, w)` -> `(1,)`: the mean of all frames, so that every one of them is computed."""
        frames: Tensor = self.decoder(latents)
        return frames.mean(dim=(1, 2, 3, 4))


def open_core_ml(name: str) -> CoreMLDevice:
    """The device; UserError where it cannot be used."""
    check_platform(name)
    return CoreMLDevice(name)


def check_platform(name: str) -> None:
    """UserError in one line, with what to do instead, unless this is a Mac that can measure on the device `name`."""
    if platform.system() != "Darwin":
        raise UserError(
            f"--device {name} needs a Mac, this is {platform.system()}: run python -m nas.latency serve "
            f"--device {name} on a Mac and give its address here, --device http://MAC:8765"
        )
    version = platform.mac_ver()[0]
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_MACOS:
        oldest = ".".join(map(str, _OLDEST_MACOS))
        raise UserError(
            f"--device {name} needs macOS {oldest} or newer, this is {version}: update it or use another Mac"
        )
    missing = [tool for tool in ("devicectl", "xcodebuild") if shutil.which(tool) is None]
    if name == "iphone" and missing:
        raise UserError(
            f"--device iphone needs Xcode's {' and '.join(missing)} on the PATH: install Xcode 15 or newer, then add "
            f"$(dirname $(xcrun --find devicectl)) to PATH"
        )


def convert(name: str, decoder: nn.Module, spec: LatentSpec, workload: Workload, folder: Path) -> Path:
    """The decoder as a package for this decode and device; `MeasurementFailedError` if Core ML has no such program."""
    import torch

    from nas.core_ml.convert import to_core_ml
    from nas.core_ml.one_decode import OneDecode

    latents = torch.zeros(1, *spec.latent_shape(workload.num_frames, workload.height, workload.width))
    shipped = OneDecode(decoder)
    module = _Summary(shipped) if name == "iphone" else shipped
    package = folder / "decoder.mlpackage"
    try:
        to_core_ml(module, (latents,)).save(str(package))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise MeasurementFailedError(f"it cannot be converted to Core ML: {str(error).splitlines()[0]}") from error
    return package


def measure_package(
    name: str,
    package: Path,
    workload: Workload,
    *,
    command: Sequence[str] = COMMAND,
    time_limit_s: float = TIME_LIMIT_S,
    stop: threading.Event | None = None,
) -> LatencyRecord:
    """Latency of a converted decoder with the fastest setting of the compute units; `details` has all of them.

    Args:
        name: "coreml" or "iphone".
        package: an `.mlpackage` for this decode.
        workload: the decode.
        command: what measures one setting, see `run_isolated`.
        time_limit_s: seconds for one setting.
        stop: see `run_isolated`.

    Raises:
        StoppedError: `stop` was set meanwhile.
        MeasurementFailedError: no setting gave a time; the message has the reason of each.
    """
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for units in UNITS:
        task = {"task": name, "package": str(package), "units": units, "team": os.environ.get("NAS_APPLE_TEAM", "")}
        try:
            found[units] = run_isolated(command, task, time_limit_s, stop)
        except MeasurementFailedError as error:
            failed[units] = str(error)
    if not found:
        reasons = "; ".join(f"{units}: {reason}" for units, reason in failed.items())
        raise MeasurementFailedError(f"Core ML ran it with no setting of the compute units ({reasons})")
    best = min(found, key=lambda units: float(found[units]["statistics"]["median_ms"]))
    statistics = found[best]["statistics"]
    ms_per_frame = statistics["median_ms"] / workload.num_frames
    return LatencyRecord(
        ms_per_frame=ms_per_frame,
        kind="measured",
        device=f"{found[best]['device']}, Core ML {best}",
        method=f"median of {statistics['runs']} predictions, steadiest of {found[best]['attempts']} sets",
        height=workload.height,
        width=workload.width,
        num_frames=workload.num_frames,
        dtype="float16",
        error=statistics["spread"],
        by_stage={"decoder": ms_per_frame},
        details={"units": found, "failed": failed},
    )
