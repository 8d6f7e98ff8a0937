"""2-D convolutions only, on 4-D tensors from end to end: for Neural Engines (TAEHV's family, widened)."""

from search_spaces.hybrid import SPACE as HYBRID
from search_spaces.space import Level, SearchSpace

_BLOCKS = ("memory_conv2d", "memory_convnext2d", "residual_conv2d")

SPACE = SearchSpace(
    name="memory2d",
    description="2-D convolutions with the frame before as memory, 4-D tensors only (for Neural Engines)",
    stems=("conv2d_stem",),
    levels=tuple(Level(_BLOCKS, level.widths, level.depths) for level in HYBRID.levels),
    upsamplers=("nearest_conv2d", "pixel_shuffle2d"),
    heads=("pixel_shuffle_head",),
    plain_heads=("pixel_shuffle_head",),
    shortcuts=("linear_shortcut",),
)
