"""What an agent can measure on: how an upload is checked, and how it is measured."""

import json
import platform
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from nas.latency.agent.archive import content_digest, unpack
from nas.latency.measurement.core_ml import TIME_LIMIT_S, UNITS, check_platform, measure_package
from nas.latency.measurement.host import describe_hardware, dtype_on
from nas.latency.measurement.worker import measure_host
from nas.latency.record import LatencyRecord, Runtime, Workload
from nas.machine.device import choose_device
from nas.machine.temporary import temporary_folder
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

    @property
    def longest_s(self) -> float:
        """Most seconds that one measurement takes; after that it is ended."""

    def to_dict(self) -> dict[str, Any]:
        """What clients are told, see `Offer`."""

    def check(self, upload: Path, workload: Workload) -> str:
        """Hash of what the upload is; `BadUploadError` or `BadArchiveError` if it cannot be measured."""

    def measure(self, upload: Path, workload: Workload, stop: threading.Event) -> LatencyRecord:
        """Latency of the upload.

        Raises:
            MeasurementFailedError: the device cannot run it.
            StoppedError: `stop` was set meanwhile.
            UserError, OSError: nothing is known about the decoder: the device or a disk is not ready.
        """


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

    @property
    def longest_s(self) -> float:
        """Most seconds that one measurement takes."""
        return self.time_limit_s

    def to_dict(self) -> dict[str, Any]:
        """What clients are told, see `Offer`."""
        dtype = str(dtype_on(self.device)).removeprefix("torch.")
        return _offer(self, accepts="config", runtime="pytorch", dtype=dtype)

    def check(self, upload: Path, workload: Workload) -> str:
        """The config's hash."""
        if upload.stat().st_size > _LARGEST_CONFIG:
            raise BadUploadError(f"a config has {_LARGEST_CONFIG} bytes at most")
        try:
            return _check_config(json.loads(upload.read_bytes()), workload).digest()
        except OSError:
            raise
        # A config names registered parts, whose constructors may raise anything for values that they do not expect.
        except Exception as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise BadUploadError(f"the upload is not a decoder config for this decode: {_one_line(reason)}") from error

    def measure(self, upload: Path, workload: Workload, stop: threading.Event) -> LatencyRecord:
        """Latency of the decoder, measured in a process of its own."""
        return measure_host(json.loads(upload.read_bytes()), workload, self.device, self.time_limit_s, stop)


@dataclass(frozen=True)
class CoreMLService:
    """Core ML on this Mac, or on the iPhone that is connected to it: takes converted packages."""

    name: str
    """Name of the device: coreml or iphone."""
    description: str
    """The device in words, for clients."""
    largest_package: int = 4 * 10**9
    """Largest size of an unpacked package, in bytes."""

    @property
    def longest_s(self) -> float:
        """Most seconds that one measurement takes."""
        return len(UNITS) * TIME_LIMIT_S

    def to_dict(self) -> dict[str, Any]:
        """What clients are told, see `Offer`."""
        return _offer(self, accepts="package", runtime="coreml", dtype="float16")

    def check(self, upload: Path, workload: Workload) -> str:
        """Hash of specification and weights."""
        return content_digest(upload, self.largest_package)

    def measure(self, upload: Path, workload: Workload, stop: threading.Event) -> LatencyRecord:
        """Latency of the package; each setting of the compute units is measured in a process of its own."""
        with temporary_folder(Path(tempfile.gettempdir())) as folder:
            package = folder / "decoder.mlpackage"
            unpack(upload, package, self.largest_package)
            return measure_package(self.name, package, workload, stop=stop)


def open_service(device: str, time_limit_s: float) -> Service:
    """What the agent serves; UserError if there is no such device here."""
    from nas.latency.devices import CORE_ML, HOST, IPHONE

    if device == HOST:
        here = choose_device()
        return HostService(f"{platform.node()} ({describe_hardware(here)})", here, time_limit_s)
    if device in (CORE_ML, IPHONE):
        check_platform(device)
        return CoreMLService(device, f"{device} at {platform.node()}")
    raise unknown_name("device", device, [HOST, CORE_ML, IPHONE])


def _check_config(data: Any, workload: Workload) -> DecoderConfig:
    """The config that `data` is; ValueError, or anything that a part raises, if it cannot be built for this decode."""
    config = DecoderConfig.from_dict(data)
    config.latents.latent_shape(workload.num_frames, workload.height, workload.width)
    widest, deepest = max(stage.width for stage in config.stages), max(stage.depth for stage in config.stages)
    if len(config.stages) > _MOST_STAGES or widest > _WIDEST or deepest > _DEEPEST_STAGE:
        raise ValueError(
            f"a decoder may have {_MOST_STAGES} stages of {_DEEPEST_STAGE} blocks and {_WIDEST} channels at most"
        )
    parameters = sum(each.numel() for each in build_skeleton(config).parameters())
    if parameters > _MOST_PARAMETERS:
        raise ValueError(f"a decoder may have {_MOST_PARAMETERS} parameters at most, this one has {parameters}")
    return config


def _offer(service: Service, *, accepts: str, runtime: Runtime, dtype: str) -> dict[str, Any]:
    known = {"name": service.name, "description": service.description, "longest_s": service.longest_s}
    return known | {"accepts": accepts, "runtime": runtime, "dtype": dtype}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
