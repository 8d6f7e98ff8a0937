"""3-D convolutions low in the decoder, 2-D with previous-frame memory as an option everywhere (the default space)."""

from search_spaces.space import Level, SearchSpace

_LOW = ("depthwise_separable_conv3d", "dense_conv3d", "factorized_conv3d", "memory_conv2d")
_HIGH = ("memory_conv2d", "dense_conv3d", "factorized_conv3d")

SPACE = SearchSpace(
    name="hybrid",
    description="depthwise, dense, factorised 3-D and 2-D memory blocks; depthwise only at low resolution",
    stems=("conv3d_stem", "conv2d_stem"),
    levels=(
        Level(_LOW, widths=(64, 96, 128, 192, 256, 384, 512), depths=(1, 2, 3, 4, 5, 7, 9)),
        Level(_LOW, widths=(48, 64, 96, 128, 192, 256), depths=(1, 2, 3, 4)),
        Level(_HIGH, widths=(16, 24, 32, 48, 64, 96, 128), depths=(1, 2, 3, 4)),
        Level(_HIGH, widths=(16, 24, 32, 48, 64), depths=(1, 2, 3, 4, 5)),
    ),
    upsamplers=("decoupled_pixel_shuffle3d", "pixel_shuffle3d", "nearest_conv3d", "trilinear_conv3d"),
    heads=("conv3d_head", "pixel_shuffle_head", "staged_pixel_shuffle_head"),
    shortcuts=("linear_shortcut",),
)
