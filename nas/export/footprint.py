"""What a decoder takes on a phone, before it is trained: memory of the timed decode, size of the package.

Both are computed from what its parts become in Core ML, which is kept on disk; nothing is measured.
"""

from dataclasses import dataclass
from math import prod

from nas.core_ml.liveness import peak_activations, weight_bytes
from nas.core_ml.part_reports import inspect_parts
from nas.core_ml.parts import decoder_parts
from nas.latency import MeasurementFailedError, Workload
from search_spaces import DecoderConfig

_FLOAT_BYTES = 2
"""Activations ship as float16."""
_BYTES_OF_AN_OPERATION = 1050
"""Bytes of an operation in a package beside its weights, about: names, arguments, types, the header of each weight."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a decoder takes where it ships."""

    memory: int
    """Most bytes of activations that the timed decode holds at once, see `nas.core_ml.liveness`; in float16."""
    size: int
    """Bytes of the exported package with weights in float16."""


def footprint(config: DecoderConfig, workload: Workload) -> Footprint:
    """Memory and size of an architecture; nothing is built where its parts are known.

    Between two parts only the result of the first is alive, and the latents if a linear shortcut reads them at the end.

    Raises:
        ValueError: the workload is not on the grid of the latents.
        NotBuildableError: a part cannot be built for its place.
        MeasurementFailedError: a part cannot be converted to Core ML.
    """
    parts = decoder_parts(config, workload.num_frames, workload.height, workload.width)
    reports = inspect_parts(part for _, part in parts)
    for stage, part in parts:
        if not reports[part].steps:
            raise MeasurementFailedError(f"{stage}: {part.config.name}: {reports[part].problem}")
    latents = prod(config.latents.latent_shape(workload.num_frames, workload.height, workload.width))
    kept = 0 if config.shortcut is None else _FLOAT_BYTES * latents
    # The stem and the shortcut read the latents themselves: theirs are counted already.
    held = {part: peak_activations(report.steps) for part, report in reports.items()}
    memory = max(held[part] + (0 if stage in ("stem", "shortcut") else kept) for stage, part in parts)
    weights = {part: weight_bytes(report.steps) for part, report in reports.items()}
    size = sum(weights[part] + _BYTES_OF_AN_OPERATION * len(reports[part].steps) for _, part in parts)
    return Footprint(memory, size)
