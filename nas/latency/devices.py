"""The devices that a latency budget may be for: this machine, or one that a profile describes."""

from typing import Protocol

from torch import nn

from nas.errors import unknown_name
from nas.latency.host import describe_host, measure
from nas.latency.operations import list_operations
from nas.latency.predict import predict
from nas.latency.profile import Profile, list_profiles, load_profile
from nas.latency.record import Kind, LatencyRecord, Workload, provenance
from search_spaces import LatentSpec

HOST = "host"
"""The name of this machine."""


class LatencyDevice(Protocol):
    """Something that latency can be had for."""

    @property
    def name(self) -> str:
        """What it is selected by."""

    @property
    def kind(self) -> Kind:
        """Whether its latencies are measured or predicted."""

    @property
    def error(self) -> float | None:
        """Typical relative error of its predictions; None if it measures."""

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, predicted for iphone-16-pro (typical error 24%)"."""

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Latency of a decoder; the decoder stays as it is."""


class HostDevice:
    """This machine: every latency is a real run."""

    name = HOST
    kind: Kind = "measured"
    error: float | None = None

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, measured on this machine (x86_64 CPU, 2 threads)"."""
        return provenance(workload, self.kind, describe_host(), None)

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Of the decoder with its weights, see `measure`."""
        return measure(decoder, spec, workload)


class PredictedDevice:
    """A device that is not here: every latency is computed from the decoder's operations."""

    kind: Kind = "predicted"

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.name = profile.device
        self.error: float | None = profile.typical_error

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, predicted for iphone-16-pro (typical error 24%)"."""
        return provenance(workload, self.kind, self.name, self.error)

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Of the decoder's architecture: it may be on the meta device. Always the same for the same architecture.

        Raises:
            ValueError: the workload is not on the grid of the latents, or the decoder uses an operation that has no
                known cost.
        """
        shape = (1, *spec.latent_shape(workload.num_frames, workload.height, workload.width))
        total, by_stage = predict(list_operations(decoder, shape), self.profile, workload.num_frames)
        return LatencyRecord(
            ms_per_frame=total,
            kind=self.kind,
            device=self.name,
            method=f"sum over operations, fitted to {len(self.profile.points)} published frame rates",
            height=workload.height,
            width=workload.width,
            num_frames=workload.num_frames,
            dtype="float16",
            error=self.profile.typical_error,
            by_stage=by_stage,
        )


def list_devices() -> list[str]:
    """Names that `open_device` takes."""
    return [HOST, *list_profiles()]


def open_device(name: str) -> LatencyDevice:
    """The device of this name; `nas.errors.UserError` with the nearest name if there is none."""
    if name == HOST:
        return HostDevice()
    if name not in list_profiles():
        raise unknown_name("device", name, list_devices())
    return PredictedDevice(load_profile(name))
