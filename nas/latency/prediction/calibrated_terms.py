"""What a calibrated profile charges an operation for: amounts of compute and of memory traffic, by cost class.

Amounts are named "class.term": compute, memory (inputs, outputs, columns, weights), calls. A profile has a coefficient
for each, in milliseconds. Element-wise operations and reductions are one class, "traffic": norms and activations have
both, always together, so no measurement of decoders could tell their costs apart.

PyTorch on a CPU hands a convolution to oneDNN only above a size ("direct"), else it unrolls the input into columns and
multiplies matrices; both were seen to differ by up to 5x in time per multiply-accumulate. What Core ML does with a
convolution is not known; there, lanes and rows are those of `nas.latency.prediction.profile.APPLE`.
"""

from collections.abc import Callable
from math import ceil, prod

from nas.latency.prediction.operations import BYTES_PER_ELEMENT, Convolution, Operation
from nas.latency.prediction.profile import APPLE
from nas.latency.record import Runtime

LANES = 16
"""Channels that a CPU's vector unit computes at once; a narrow layer leaves lanes idle."""

OVERFLOW = 8.0
"""Millions of elements of one tensor above which its memory is no longer reused: 32 MB in float32, the size from which
the C library takes fresh pages for every allocation, and about that of a last-level cache."""

_DIRECT_ABOVE = 20480
"""Product of the first four axes of the input above which PyTorch hands a convolution to oneDNN
(`use_mkldnn` in ATen/native/Convolution.cpp)."""


def pytorch_terms(operation: Operation) -> dict[str, float]:
    """Amounts of one of PyTorch's operations on a CPU: GMACs, millions of elements, calls."""
    if operation.convolution is not None:
        return _convolution_terms(operation, operation.convolution)
    read, written = _millions(operation.bytes_read), _millions(operation.bytes_written)
    cost_class = _plain_class(operation)
    return {
        f"{cost_class}.gmacs": operation.macs / 1e9,
        f"{cost_class}.moved": read + written,
        f"{cost_class}.overflow": _overflow(read) + _overflow(written),
        f"{cost_class}.calls": 1.0,
    }


def core_ml_terms(operation: Operation) -> dict[str, float]:
    """Amounts of one of Core ML's operations on any of its compute units: GMACs, MB, calls."""
    cost_class, macs = _plain_class(operation), operation.macs / 1e9
    if operation.cost_class == "conv":
        assert operation.convolution is not None
        cost_class = "pointwise_conv" if prod(operation.convolution.kernel) == 1 else "conv"
        macs *= APPLE.lane_factor(operation.channels_in)
    sizes = APPLE.megabytes(operation.reads), APPLE.megabytes(operation.writes)
    return {
        f"{cost_class}.gmacs": macs,
        f"{cost_class}.moved": sum(sizes),
        f"{cost_class}.overflow": sum(max(0.0, size - APPLE.on_chip_mb) for size in sizes),
        f"{cost_class}.calls": 1.0,
    }


TERMS_OF: dict[Runtime, Callable[[Operation], dict[str, float]]] = {"pytorch": pytorch_terms, "coreml": core_ml_terms}
"""Functions that give the terms of an operation, by what executes the decoder."""


def _plain_class(operation: Operation) -> str:
    return "traffic" if operation.cost_class in ("elementwise", "reduction") else operation.cost_class


def _convolution_terms(operation: Operation, conv: Convolution) -> dict[str, float]:
    cost_class = _convolution_class(operation, conv)
    inputs, outputs = prod(conv.input_shape) / 1e6, _millions(operation.bytes_written)
    terms = {
        "gmacs": operation.macs / 1e9,
        "outputs": outputs,
        "weights": operation.channels_in * conv.channels_out * prod(conv.kernel) / 1e6,
        "calls": 1.0,
    }
    if cost_class == "direct_conv":
        terms["gmacs"] *= _padding(operation.channels_in) * _padding(conv.channels_out)
        terms |= {"inputs": inputs, "overflow": _overflow(inputs) + _overflow(outputs)}
    elif cost_class == "depthwise_conv":
        terms |= {"inputs": inputs}
    else:
        columns = operation.macs / conv.channels_out / 1e6
        terms |= {"columns": columns, "overflow": _overflow(columns)}
    return {f"{cost_class}.{name}": amount for name, amount in terms.items()}


def _convolution_class(operation: Operation, conv: Convolution) -> str:
    if operation.cost_class == "depthwise_conv":
        return "depthwise_conv"
    pointwise = prod(conv.kernel) == 1
    flat = conv.kernel[-2:] == (1, 1)
    batch, *_ = conv.input_shape
    large = conv.groups > 1 or min(conv.kernel[-2:]) > 3 or batch > 1 or prod(conv.input_shape[:4]) > _DIRECT_ABOVE
    # On one thread PyTorch unrolls what has no extent in space, unless the batch is large.
    if large and (not flat or batch >= LANES):
        return "direct_conv"
    return "pointwise_conv" if pointwise else "unrolled_conv"


def _padding(channels: int) -> float:
    """Channels that are computed relative to those that are needed."""
    return ceil(channels / LANES) * LANES / channels


def _millions(size_bytes: int) -> float:
    return size_bytes / BYTES_PER_ELEMENT / 1e6


def _overflow(millions: float) -> float:
    return max(0.0, millions - OVERFLOW)
