"""What a decoder takes on a phone, before it is trained: memory of the timed decode, size of the package.

Both are computed from what its parts become in Core ML, which is kept on disk; nothing is measured.
"""

from dataclasses import dataclass

from nas.core_ml.part_reports import inspect_parts
from nas.core_ml.parts import UntraceablePartError, decoder_parts
from nas.latency import MeasurementFailedError, Workload
from search_spaces import Decoder

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


def footprint(decoder: Decoder, workload: Workload) -> Footprint:
    """Memory and size of a decoder; it may be on the meta device.

    Between two parts only the result of the first is alive, and the latents if a linear shortcut reads them at the end.

    Raises:
        ValueError: the workload is not on the grid of the latents.
        MeasurementFailedError: a part cannot be converted to Core ML.
    """
    try:
        parts = decoder_parts(decoder, workload.num_frames, workload.height, workload.width)
    except UntraceablePartError as error:
        raise MeasurementFailedError(str(error)) from error
    reports = inspect_parts(part for _, part in parts)
    for stage, part in parts:
        if not reports[part].steps:
            raise MeasurementFailedError(f"{stage}: {part.config.name}: {reports[part].problem}")
    channels, frames, height, width = decoder.config.latents.latent_shape(
        workload.num_frames, workload.height, workload.width
    )
    kept = _FLOAT_BYTES * channels * frames * height * width if decoder.config.shortcut is not None else 0
    # The stem and the shortcut read the latents themselves: theirs are counted already.
    held = (reports[part].peak_activations + (0 if stage in ("stem", "shortcut") else kept) for stage, part in parts)
    operations = sum(len(reports[part].steps) for _, part in parts)
    weights = sum(reports[part].weight_bytes for _, part in parts)
    return Footprint(max(held), weights + _BYTES_OF_AN_OPERATION * operations)
