"""3-D convolutions low in the decoder, 2-D with previous-frame memory as an option everywhere (the default space)."""

from search_spaces.space import Level, SearchSpace

_DENSE_IN_TIME = ("dense_conv3d", "factorized_conv3d", "low_rank_conv3d", "reparameterized_conv3d")
_LOW = (
    "depthwise_separable_conv3d",
    "inverted_bottleneck3d",
    *_DENSE_IN_TIME,
    "memory_conv2d",
    "memory_convnext2d",
)
_HIGH = ("memory_conv2d", "memory_convnext2d", "residual_conv2d", *_DENSE_IN_TIME)

SPACE = SearchSpace(
    name="hybrid",
    description="3-D and 2-D memory blocks; depthwise 3-D only at low resolution, frame-wise 2-D only at high",
    stems=("conv3d_stem", "conv2d_stem"),
    levels=(
        Level(_LOW, widths=(64, 96, 128, 192, 256, 384, 512), depths=(1, 2, 3, 4, 5, 7, 9)),
        Level(_LOW, widths=(32, 48, 64, 96, 128, 192, 256, 384, 512), depths=(1, 2, 3, 4)),
        Level(_HIGH, widths=(16, 24, 32, 48, 64, 96, 128), depths=(1, 2, 3, 4)),
        Level(_HIGH, widths=(12, 16, 24, 32, 48, 64), depths=(0, 1, 2, 3, 4, 5)),
    ),
    upsamplers=(
        *("decoupled_pixel_shuffle3d", "pixel_shuffle3d", "pixel_shuffle2d"),
        *("nearest_conv3d", "nearest_conv2plus1d", "nearest_conv2d", "trilinear_conv3d"),
    ),
    heads=("pixel_shuffle_head", "staged_pixel_shuffle_head", "haar_head"),
    plain_heads=("conv3d_head", "pixel_shuffle_head"),
    middles=("frame_attention2d",),
    shortcuts=("linear_shortcut",),
)
