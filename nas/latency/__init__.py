"""Latency of a decoder, measured on this machine or predicted for a device; every number says which it is."""

import importlib
from typing import TYPE_CHECKING, Any

from nas.latency.budget import parse_budget
from nas.latency.record import LatencyRecord, MeasurementFailedError, Workload

if TYPE_CHECKING:
    from nas.latency.devices import LatencyDevice, list_devices, open_device
    from nas.latency.measurement.host import measure
    from nas.latency.prediction.operations import Operation, list_operations
    from nas.latency.prediction.predict import predict

DEFAULT_DEVICE = "iphone-16-pro"
"""Name of the device that a latency budget is for by default."""

__all__ = [
    "DEFAULT_DEVICE",
    "LatencyDevice",
    "LatencyRecord",
    "MeasurementFailedError",
    "Operation",
    "Workload",
    "list_devices",
    "list_operations",
    "measure",
    "open_device",
    "parse_budget",
    "predict",
]

# torch takes seconds to import, which `--help` and a wrong budget must not wait for.
_NEED_TORCH = {
    "LatencyDevice": "devices",
    "Operation": "prediction.operations",
    "list_devices": "devices",
    "list_operations": "prediction.operations",
    "measure": "measurement.host",
    "open_device": "devices",
    "predict": "prediction.predict",
}


def __getattr__(name: str) -> Any:
    """Import the names whose modules import torch on first use."""
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
