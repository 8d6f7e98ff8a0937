"""What an agent can measure on: how an upload is checked, and how it is measured."""

import json
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from nas.latency.agent.archive import content_digest, unpack
from nas.latency.measurement.worker import measure_host
from nas.latency.record import LatencyRecord, Workload
from nas.machine.device import choose_device
from nas.terminal.errors import unknown_name
from search_spaces import DecoderConfig, build_skeleton

_LARGEST_CONFIG = 1_000_000
_MOST_PARAMETERS = 10**9
_MOST_STAGES, _DEEPEST_STAGE, _WIDEST = 16, 64, 8192


class BadUploadError(ValueError):
    """An upload that is not what the device measures."""


class Service(Protocol):
    """A device behind an agent."""

    @property
    def name(self) -> str:
        """Name of the device."""

    @property
    def description(self) -> str:
        """The device in words."""

    def to_dict(self) -> dict[str, Any]:
        """What clients are told: name, description, accepts."""

    def check(self, upload: Path, workload: Workload) -> str:
        """Hash of what the upload is; `BadUploadError` or `BadArchiveError` if it cannot be measured."""

    def measure(self, upload: Path, workload: Workload) -> LatencyRecord:
        """Latency of the upload; `MeasurementFailedError` if the device cannot run it."""


@dataclass(frozen=True)
class HostService:
    """This machine in PyTorch: takes configs, builds the decoders itself."""

    description: str
    """The machine in words, for clients."""
    device: torch.device
    """Device that decoders run on."""
    time_limit_s: float
    """Seconds after which a measurement is given up."""
    name: str = "host"
    """Name of the device."""

    def to_dict(self) -> dict[str, Any]:
        """Name, description, accepts."""
        return {"name": self.name, "description": self.description, "accepts": "config"}

    def check(self, upload: Path, workload: Workload) -> str:
        """The config's hash."""
        if upload.stat().st_size > _LARGEST_CONFIG:
            raise BadUploadError(f"a config has {_LARGEST_CONFIG} bytes at most")
        try:
            config = DecoderConfig.from_dict(json.loads(upload.read_bytes()))
            config.latents.latent_shape(workload.num_frames, workload.height, workload.width)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise BadUploadError(f"the upload is not a decoder config for this decode: {reason}") from error
        widest, deepest = max(stage.width for stage in config.stages), max(stage.depth for stage in config.stages)
        if len(config.stages) > _MOST_STAGES or widest > _WIDEST or deepest > _DEEPEST_STAGE:
            raise BadUploadError(
                f"a decoder may have {_MOST_STAGES} stages of {_DEEPEST_STAGE} blocks and {_WIDEST} channels at most"
            )
        parameters = sum(each.numel() for each in build_skeleton(config).parameters())
        if parameters > _MOST_PARAMETERS:
            raise BadUploadError(f"a decoder may have {_MOST_PARAMETERS} parameters at most, this one has {parameters}")
        return config.digest()

    def measure(self, upload: Path, workload: Workload) -> LatencyRecord:
        """Latency of the decoder, measured in a process of its own."""
        return measure_host(json.loads(upload.read_bytes()), workload, self.device, self.time_limit_s)


@dataclass(frozen=True)
class CoreMLService:
    """Core ML on this Mac, or on the iPhone that is connected to it: takes converted packages."""

    name: str
    """Name of the device: coreml or iphone."""
    description: str
    """The device in words, for clients."""
    largest_package: int = 4 * 10**9
    """Largest size of an unpacked package, in bytes."""

    def to_dict(self) -> dict[str, Any]:
        """Name, description, accepts."""
        return {"name": self.name, "description": self.description, "accepts": "package"}

    def check(self, upload: Path, workload: Workload) -> str:
        """Hash of specification and weights."""
        return content_digest(upload, self.largest_package)

    def measure(self, upload: Path, workload: Workload) -> LatencyRecord:
        """Latency of the package; each setting of the compute units is measured in a process of its own."""
        from nas.latency.measurement.core_ml import measure_package

        with tempfile.TemporaryDirectory(prefix="nas-package-") as folder:
            package = Path(folder) / "decoder.mlpackage"
            unpack(upload, package, self.largest_package)
            return measure_package(self.name, package, workload)


def open_service(device: str, time_limit_s: float) -> Service:
    """What the agent serves; UserError if there is no such device here."""
    from nas.latency.devices import CORE_ML, HOST, IPHONE

    if device == HOST:
        from nas.latency.measurement.host import describe_hardware

        here = choose_device()
        return HostService(f"{platform.node()} ({describe_hardware(here)})", here, time_limit_s)
    if device in (CORE_ML, IPHONE):
        from nas.latency.measurement.core_ml import check_platform

        check_platform(device)
        return CoreMLService(device, f"{device} at {platform.node()}")
    raise unknown_name("device", device, [HOST, CORE_ML, IPHONE])
