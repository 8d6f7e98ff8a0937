"""The family of the paper, widened: 3-D convolutions only (Turbo-VAED, arXiv 2508.09136)."""

from search_spaces.hybrid import SPACE as HYBRID
from search_spaces.space import Level, SearchSpace

_BLOCKS = (
    *("depthwise_separable_conv3d", "dense_conv3d", "factorized_conv3d"),
    *("inverted_bottleneck3d", "low_rank_conv3d", "reparameterized_conv3d"),
)

SPACE = SearchSpace(
    name="turbo3d",
    description="the published Turbo-VAED family, widened: 3-D blocks and pixel shuffles only",
    stems=("conv3d_stem",),
    levels=tuple(Level(_BLOCKS, level.widths, level.depths) for level in HYBRID.levels),
    upsamplers=("decoupled_pixel_shuffle3d", "pixel_shuffle3d"),
    heads=("staged_pixel_shuffle_head",),
    plain_heads=("conv3d_head",),
    shortcuts=("linear_shortcut",),
)
