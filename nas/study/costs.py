"""What a decoder costs: the numbers that constraints are about, all of them known before any training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from nas.latency import LatencyRecord
from nas.machine.records import read_fields


@dataclass(frozen=True)
class Costs:
    """What a decoder costs."""

    latency: LatencyRecord
    """Latency on the device that was named first."""
    parameters: int
    """Number of parameters."""
    latencies: dict[str, LatencyRecord] = field(default_factory=dict)
    """Latency on each further device, by the name that it was asked for with."""
    memory: int | None = None
    """Peak bytes of activations of the timed decode; None where nobody asked for it."""
    size: int | None = None
    """Bytes of the exported package; None where nobody asked for it."""

    def values(self) -> dict[str, float]:
        """The numbers that are known, by the names and in the units of constraints."""
        known: dict[str, float] = {"latency": self.latency.ms_per_frame, "parameters": self.parameters / 1e6}
        known |= {latency_on(name): record.ms_per_frame for name, record in self.latencies.items()}
        known |= {} if self.memory is None else {"memory": self.memory / 1e6}
        return known | ({} if self.size is None else {"size": self.size / 1e6})

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives that `from_dict` takes back."""
        latencies = {name: record.to_dict() for name, record in self.latencies.items()}
        plain = {name: getattr(self, name) for name in ("parameters", "memory", "size")}
        return {"latency": self.latency.to_dict(), "latencies": latencies, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Costs":
        """Inverse of `to_dict`; what else is in `data` is left alone.

        Raises:
            ValueError: a number is missing or not one.
        """
        return read_fields(cls, {each.name: data[each.name] for each in fields(cls) if each.name in data})


def latency_on(device: str) -> str:
    """Name of the constraint on the latency on a further device."""
    return f"latency on {device}"
