"""Multiply-accumulates of a module as fvcore counts them, to check our own count by."""

import warnings

from torch import Tensor, nn

_COUNTED = ("conv", "linear", "matmul", "addmm", "bmm", "baddbmm", "einsum")
"""What multiplies with accumulation, by fvcore's names; it counts interpolation too."""

_FREE_NAMES = """
    abs add cat clamp div exp flip gelu hardsigmoid hardswish hardtanh leaky_relu maximum mean minimum mish mul neg pad
    pixel_shuffle pow relu relu6 repeat_interleave rsqrt sigmoid silu softmax sqrt square stack sub sum tanh unflatten
"""
_FREE = frozenset(_FREE_NAMES.split())
"""Operations without multiply-accumulates: one result per element, or elements that move."""


def count_macs(module: nn.Module, x: Tensor) -> tuple[int, set[str]]:
    """Multiply-accumulates of `module(x)`, and the operations that fvcore does not know and that are not free."""
    with warnings.catch_warnings():
        # fvcore uses torch.jit.script when it is imported.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")
        from fvcore.nn import FlopCountAnalysis

    counter = FlopCountAnalysis(module, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = sum(int(count) for name, count in counter.by_operator().items() if name in _COUNTED)
    unsupported = counter.unsupported_ops()
    unknown = {name for name in unsupported if name.removeprefix("aten::").removesuffix("_") not in _FREE}
    return counted, unknown
