"""The devices that a latency budget may be for: what measures (here, a Mac, a phone, elsewhere) and what predicts."""

import re
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from nas.latency.measurement.host import Clock, describe_host, measure
from nas.latency.measurement.host_memory import refuse_without_memory
from nas.latency.prediction.by_parts import LatencyByParts
from nas.latency.prediction.calibrated_profile import CalibratedProfile
from nas.latency.prediction.core_ml_operations import list_core_ml_operations
from nas.latency.prediction.operations import Operation, list_operations
from nas.latency.prediction.predict import Prediction, predict
from nas.latency.prediction.profile import Profile, list_profiles, load_profile
from nas.latency.prediction.profile_files import is_profile_file, read_profile
from nas.latency.record import Kind, LatencyRecord, MeasurementFailedError, Runtime, Workload, provenance
from nas.machine.batches import out_of_memory_as
from nas.machine.device import choose_device
from nas.terminal.errors import UserError, unknown_name
from search_spaces import Decoder, LatentSpec

HOST, CORE_ML, IPHONE = "host", "coreml", "iphone"
"""Names of this machine, of Core ML on this Mac, and of an iPhone that is connected to this Mac."""


class LatencyDevice(Protocol):
    """A device whose latency can be measured or predicted."""

    @property
    def name(self) -> str:
        """Name that the device is opened by."""

    @property
    def kind(self) -> Kind:
        """Whether its latencies are measured or predicted."""

    @property
    def error(self) -> float | None:
        """Typical relative error of its predictions; None if it measures."""

    @property
    def runtime(self) -> Runtime:
        """What executes decoders: PyTorch or Core ML."""

    @property
    def needs_weights(self) -> bool:
        """Whether decoders have to have values; else they may be on the meta device."""

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, predicted for DEVICE (typical error N%)"."""

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Latency of a decoder; the decoder stays as it is. `MeasurementFailedError` if the device cannot run it."""


@dataclass(frozen=True)
class HostDevice:
    """This machine: every latency is a real run."""

    device: torch.device
    """Device that decoders run on."""
    time_limit_s: float = 10.0
    """Seconds for the timed rounds of one measurement, see `measure`."""
    clock: Clock = time.perf_counter
    """Clock that the CPU is timed with, see `measure`."""

    name = HOST
    kind: Kind = "measured"
    error: float | None = None
    runtime: Runtime = "pytorch"
    needs_weights = True

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, measured on this machine (x86_64 CPU, 2 threads)"."""
        return provenance(workload, self.kind, describe_host(self.device), None)

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Measure the decoder with its weights, see `measure`.

        Raises:
            MeasurementFailedError: the decode needs more memory than there is: it is not begun, or does not end.
            ValueError: the workload is not on the grid of the latents.
        """
        refuse_without_memory(decoder, spec, workload, self.device)
        failed = f"{self.device.type} is out of memory in a decode of {workload.describe()}"
        with out_of_memory_as(MeasurementFailedError(failed)):
            return measure(
                decoder, spec, workload, device=self.device, time_limit_s=self.time_limit_s, clock=self.clock
            )


class PredictedDevice:
    """A device that is not here: every latency is computed from the decoder's operations."""

    kind: Kind = "predicted"
    needs_weights = False

    def __init__(self, profile: Profile | CalibratedProfile) -> None:
        self.profile = profile
        self.name = profile.device
        self.error: float | None = profile.typical_error
        self.runtime: Runtime = profile.runtime
        self._by_parts: dict[Workload, LatencyByParts] = {}

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, predicted for DEVICE (typical error N%)"."""
        return provenance(workload, self.kind, self.name, self.error)

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Predict the latency of an architecture: the same each time. The decoder may be on the meta device.

        Raises:
            ValueError: the workload is not on the grid of the latents, or the decoder uses an operation that has no
                known cost.
            MeasurementFailedError: it cannot be converted to Core ML, where that is what the device runs.
            UserError: the profile charges nothing for it, or without end.
        """
        if self.runtime == "coreml" and isinstance(decoder, Decoder):
            return self._record(self.by_parts(workload).predict(decoder.config), workload)
        operations = operations_on(self.runtime, decoder, spec, workload)
        return self._record(predict(operations, self.profile, workload.num_frames), workload)

    def by_parts(self, workload: Workload) -> LatencyByParts:
        """Predictions for one decode, which remember what each part costs; `UserError` where PyTorch runs decoders."""
        if workload not in self._by_parts:
            self._by_parts[workload] = LatencyByParts(self.profile, workload)
        return self._by_parts[workload]

    def _record(self, found: Prediction, workload: Workload) -> LatencyRecord:
        if not 0 < found.total < inf:
            raise UserError(
                f"the profile of {self.name} predicts {found.total} ms for a decoder: its coefficients make no sense, "
                f"calibrate again"
            )
        return LatencyRecord(
            ms_per_frame=found.total,
            kind=self.kind,
            device=f"{self.name} {found.units}" if found.units else self.name,
            method=f"sum over operations, fitted to {self.profile.basis}",
            height=workload.height,
            width=workload.width,
            num_frames=workload.num_frames,
            dtype=self.profile.dtype,
            error=self.profile.typical_error,
            by_stage=found.by_stage,
        )


def operations_on(runtime: Runtime, module: nn.Module, spec: LatentSpec, workload: Workload) -> list[Operation]:
    """What a decode of `module(latents)` executes there; the module may be on the meta device.

    Raises:
        ValueError: the workload is not on the grid of the latents.
        UnknownOperationError: an operation has no known cost.
        MeasurementFailedError: it cannot be converted to a program of that runtime.
    """
    if runtime == "coreml":
        return list_core_ml_operations(module, spec, workload)
    return list_operations(module, (1, *spec.latent_shape(workload.num_frames, workload.height, workload.width)))


def open_predicted(name: str, default: str) -> LatencyDevice:
    """The device of this name if it is one that predicts, else the default one: nothing that measures is touched."""
    predicts = name in list_profiles() or is_profile_file(name)
    return open_device(name if predicts else default)


def list_devices() -> list[str]:
    """Names that `open_device` takes, beside the address of an agent and the path of a profile."""
    return [HOST, *list_profiles(), CORE_ML, IPHONE]


def open_device(name: str) -> LatencyDevice:
    """The device of this name: one of `list_devices`, an agent's http:// address, a profile's .json file.

    Raises:
        UserError: there is no such device (with the nearest name), or it cannot be used from here.
    """
    if "://" not in name and is_profile_file(name):
        return PredictedDevice(read_profile(Path(name)))
    if "://" in name or "@" in name:  # even with a slash too few it has a user, and maybe a password, in it
        from nas.latency.agent.client import open_agent

        return open_agent(name)
    if name == HOST:
        return HostDevice(choose_device())
    if name in (CORE_ML, IPHONE):
        from nas.latency.measurement.core_ml import open_core_ml

        return open_core_ml(name)
    if re.fullmatch(r"\[?[\w.:-]+\]?:\d+", name):
        raise UserError(f"expected an agent's address such as http://mac:8765, got {name}: did you mean http://{name}?")
    if name not in list_profiles():
        raise unknown_name("device", name, list_devices())
    return PredictedDevice(load_profile(name))
